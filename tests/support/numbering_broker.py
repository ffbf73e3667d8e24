"""A broker of MQTT 3.1.1 over TCP that numbers packets, sets DUP and keeps sessions in the ways of different brokers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from core.mqtt.topics import matches
from tests.support.tcp_server import TcpServer

Numbers = Literal["circle", "lowest", "anew"]
CIRCLE = 65_535


class Session:
    """What the broker keeps of one client."""

    def __init__(self) -> None:
        self.filters: set[str] = set()
        self.queue: deque[tuple[str, bytes]] = deque()
        self.under_way: dict[int, tuple[str, bytes]] = {}
        self.last = 0
        self.writer: asyncio.StreamWriter | None = None


class NumberingBroker:
    """Hands messages on at QoS 1.

    - ``numbers``: "circle" as Mosquitto, "lowest" free identifier, or "anew" from 1 on each connection, as RabbitMQ 3.10.
    - ``dup``: whether it sets DUP on what it sends again. aedes does not.
    - ``keeps``: whether it keeps sessions.
    - ``resends``: whether it sends again what was not acknowledged. amqtt does not.
    - ``refuses``: topics that begin so are refused, as by an ACL.
    - ``window``: how many packets are under way at once.
    """

    def __init__(
        self,
        numbers: Numbers = "circle",
        *,
        dup: bool = True,
        keeps: bool = True,
        resends: bool = True,
        refuses: str = "-",
        window: int = 100,
    ) -> None:
        self.numbers = numbers
        self.dup = dup
        self.keeps = keeps
        self.resends = resends
        self.refuses = refuses
        self.window = window
        self.sessions: dict[str, Session] = {}
        self.connects: list[str] = []
        self.ignores_pubacks = False
        self._server = TcpServer(self._serve)

    async def start(self) -> NumberingBroker:
        await self._server.start()
        return self

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self._server.port}"

    async def stop(self) -> None:
        await self._server.stop()

    def cut(self) -> None:
        """Cut all connections."""
        for session in self.sessions.values():
            if session.writer is not None:
                session.writer.transport.abort()

    def publish(self, topic: str, body: bytes) -> None:
        for session in self.sessions.values():
            if any(matches(one, topic) for one in session.filters):
                session.queue.append((topic, body))
                self._deliver(session)

    # -- packets -------------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind, packet = await _read(reader)
        assert kind >> 4 == 1
        if packet[6] != 4:
            # Unacceptable protocol version, as MQTT 3.1.1 says it.
            writer.write(b"\x20\x02\x00\x01")
            return
        clean, length = bool(packet[7] & 2), int.from_bytes(packet[10:12], "big")
        client_id = packet[12 : 12 + length].decode()
        self.connects.append(client_id)
        before = self.sessions.get(client_id)
        if before is not None and before.writer is not None:
            before.writer.transport.abort()
        present = before is not None and not clean
        session = self.sessions[client_id] = before if before is not None and present else Session()
        session.writer = writer
        writer.write(bytes([0x20, 2, int(present), 0]))
        self._again(session)
        try:
            while await self._packet(session, *await _read(reader)):
                await writer.drain()
        finally:
            if session.writer is writer:
                session.writer = None
                if clean or not self.keeps:
                    self.sessions.pop(client_id, None)

    async def _packet(self, session: Session, kind: int, packet: bytes) -> bool:
        assert session.writer is not None
        number = packet[:2]
        if kind >> 4 == 3:
            length = int.from_bytes(packet[:2], "big")
            topic, rest = packet[2 : 2 + length].decode(), packet[2 + length :]
            if kind & 6:
                session.writer.write(b"\x40\x02" + rest[:2])
                rest = rest[2:]
            if not topic.startswith(self.refuses):
                self.publish(topic, rest)
        elif kind >> 4 == 4:
            if not self.ignores_pubacks:
                session.under_way.pop(int.from_bytes(number, "big"), None)
                self._deliver(session)
        elif kind >> 4 == 8:
            codes = b""
            rest = packet[2:]
            while rest:
                length = int.from_bytes(rest[:2], "big")
                topic, rest = rest[2 : 2 + length].decode(), rest[3 + length :]
                refused = topic.startswith(self.refuses)
                codes += b"\x80" if refused else b"\x01"
                session.filters |= set() if refused else {topic}
            session.writer.write(bytes([0x90, 2 + len(codes)]) + number + codes)
        elif kind >> 4 == 10:
            session.writer.write(b"\xb0\x02" + number)
        elif kind >> 4 == 12:
            session.writer.write(b"\xd0\x00")
        return kind >> 4 != 14

    def _again(self, session: Session) -> None:
        """Send what is under way again."""
        if not self.resends:
            session.under_way.clear()
        again = list(session.under_way.items())
        if self.numbers == "anew":
            again = [(place, message) for place, (_, message) in enumerate(again, 1)]
            session.under_way, session.last = dict(again), len(again)
        for packet_id, message in again:
            self._send(session, packet_id, message, dup=self.dup)
        self._deliver(session)

    def _deliver(self, session: Session) -> None:
        while session.writer is not None and session.queue and len(session.under_way) < self.window:
            packet_id = session.last % CIRCLE + 1
            if self.numbers == "lowest":
                packet_id = next(one for one in range(1, CIRCLE) if one not in session.under_way)
            session.last = packet_id
            session.under_way[packet_id] = message = session.queue.popleft()
            self._send(session, packet_id, message, dup=False)

    def _send(self, session: Session, packet_id: int, message: tuple[str, bytes], *, dup: bool) -> None:
        topic, body = message[0].encode(), message[1]
        rest = len(topic).to_bytes(2, "big") + topic + packet_id.to_bytes(2, "big") + body
        assert session.writer is not None
        assert len(rest) < 128
        session.writer.write(bytes([0x3A if dup else 0x32, len(rest)]) + rest)


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    kind = (await reader.readexactly(1))[0]
    length, shift = 0, 0
    while True:
        part = (await reader.readexactly(1))[0]
        length |= (part & 127) << shift
        shift += 7
        if part < 128:
            return kind, await reader.readexactly(length)


@asynccontextmanager
async def numbering(numbers: Numbers = "circle", **more: Any) -> AsyncIterator[NumberingBroker]:
    """Run such a broker."""
    broker = await NumberingBroker(numbers, **more).start()
    try:
        yield broker
    finally:
        await broker.stop()
