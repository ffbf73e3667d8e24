"""A broker that checks nothing, and hangs up on what it does not like."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress

from core.session.identity import PROBE_TOPICS


def variable(number: int) -> bytes:
    """Return a variable byte integer."""
    out = bytearray()
    while True:
        number, low = divmod(number, 128)
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def text(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data


def publish(
    version: str, topic: bytes, body: bytes, packet_id: int = 1, properties: bytes = b"", told: int | None = None
) -> bytes:
    """Return a PUBLISH of whatever bytes, at QoS 0 without a packet identifier. ``told`` is the length of its properties."""
    rest = text(topic) + (struct.pack("!H", packet_id) if packet_id else b"")
    if not version.endswith("3.1.1"):
        rest += variable(len(properties) if told is None else told) + properties
    rest += body
    return bytes([0x32 if packet_id else 0x30]) + variable(len(rest)) + rest


class HostileBroker:
    """Serves connections (see ``tests.support.tcp_server.serving``).

    - ``sends``: what it sends to whoever subscribes, and again on each connection until it is acknowledged.
    - ``hates``: whether it hangs up on a PUBLISH on this topic.
    - ``code``: the reason code that it says first, by MQTT 5.
    """

    def __init__(
        self,
        version: str,
        sends: Sequence[bytes] = (),
        hates: Callable[[str], bool] = lambda topic: False,
        code: int | None = None,
    ) -> None:
        self._is_5 = not version.endswith("3.1.1")
        self._sends = dict(enumerate(sends, 1))
        self._hates = hates
        self._code = code
        self.acknowledged: list[int] = []
        self.published: list[tuple[str, bytes]] = []
        self.hung_up = 0
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(asyncio.IncompleteReadError):
            while True:
                first, rest = await self._packet(reader)
                if first == 0xE0 or not await self._answer(first, rest, writer):
                    return

    async def _packet(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        first = (await reader.readexactly(1))[0]
        size = place = 0
        while True:
            byte = (await reader.readexactly(1))[0]
            size |= (byte & 0x7F) << 7 * place
            place += 1
            if byte < 0x80:
                return first, await reader.readexactly(size)

    async def _answer(self, first: int, rest: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answer a packet. Return whether the connection goes on."""
        none = b"\0" if self._is_5 else b""
        kind = first & 0xF0
        if kind == 0x10:
            writer.write(b"\x20" + bytes([2 + len(none)]) + b"\0\0" + none)
        elif kind == 0x80:
            writer.write(b"\x90" + bytes([3 + len(none)]) + rest[:2] + none + b"\x01")
            if PROBE_TOPICS.encode() in rest:
                # The worker asks what the identifiers of this broker prove, and gets no answer.
                return True
            for packet in list(self._sends.values()):
                writer.write(packet)
                await writer.drain()
            self._sends = {number: packet for number, packet in self._sends.items() if packet[0] & 0x06}
        elif kind == 0xA0:
            writer.write(b"\xb0" + bytes([2 + 2 * len(none)]) + rest[:2] + 2 * none)
        elif kind == 0xC0:
            writer.write(b"\xd0\0")
        elif kind == 0x40:
            number = int.from_bytes(rest[:2], "big")
            self.acknowledged.append(number)
            self._sends.pop(number, None)
        elif kind == 0x30:
            return self._published(first, rest, writer)
        return True

    def _published(self, first: int, rest: bytes, writer: asyncio.StreamWriter) -> bool:
        size = int.from_bytes(rest[:2], "big")
        topic, rest = rest[2 : 2 + size].decode(), rest[2 + size :]
        if self._hates(topic):
            self.hung_up += 1
            if self._code is not None:
                writer.write(b"\xe0\x02" + bytes([self._code, 0]))
            return False
        if first & 0x06:
            writer.write(b"\x40\x02" + rest[:2])
            rest = rest[2:]
        # Whoever uses this publishes without properties.
        self.published.append((topic, rest[1:] if self._is_5 else rest))
        return True
