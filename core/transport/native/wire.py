"""The bytes of one MQTT 5 connection, cut into packets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import mqtt5

from core.errors import one_line
from core.transport.connection import PACKET_TOO_LARGE
from core.transport.salvage import KEPT, remaining

if TYPE_CHECKING:
    from collections.abc import Callable

BUFFER = 256 * 1024
"""Bytes of a connection's buffer, for as long as no packet needs more."""
MALFORMED_PACKET = 0x81


class Wire(asyncio.BufferedProtocol):
    """The bytes of one connection, cut into packets in one pass over what was read.

    - ``packet``: called with each packet.
    - ``unread``: called with a packet that the codec cannot read, and why. Of a packet that is too large it gets the
      beginning, and the size of the whole packet in the place of why. It returns whether the connection can go on.
    - ``lost``: called with the reason when the connection is lost, and with the reason code to be sent for a packet that
      cannot be read.
    - ``most``: bytes of the largest packet that is read whole.
    """

    def __init__(
        self,
        packet: Callable[[Any], None],
        unread: Callable[[bytes, str | int], bool],
        lost: Callable[[str, int | None], None],
        most: int,
    ) -> None:
        self._packet = packet
        self._unread = unread
        self._lost = lost
        self._most = most
        self._large: tuple[bytes, int] | None = None
        self._passing = 0
        self.reads = 0
        self._view = memoryview(bytearray(BUFFER))
        self._end = 0
        self.stopped = False
        self.writable = asyncio.Event()
        self.writable.set()
        self.gone = asyncio.Event()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the free part of the buffer. A packet that fills the buffer doubles it."""
        if self._end == len(self._view):
            larger = memoryview(bytearray(2 * len(self._view)))
            larger[: self._end] = self._view
            self._view = larger
        return self._view[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on every packet that is complete."""
        self.reads += 1
        view = self._view
        start, end = 0, self._end + nbytes
        if self._large is not None:
            start = self._pass_over(end)
        read, take = mqtt5.read, self._packet
        while start < end and not self.stopped:
            try:
                packet, size = read(view[start:end])
            except IndexError:
                break
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - a topic that is not UTF-8 makes the codec panic, beyond Exception
                size = self._unreadable(view[start:end], one_line(error, name=False))
                if not size:
                    break
                start += size
                continue
            start += size
            take(packet)
        rest = end - start
        if rest >= KEPT and not self.stopped and self._is_large(view[start:end]):
            rest = 0
        if start and rest:
            view[:rest] = bytes(view[start:end])
        self._end = rest
        if not rest and len(view) > BUFFER:
            self._view = memoryview(bytearray(BUFFER))

    def _unreadable(self, data: memoryview, why: str) -> int:
        """Hand on the packet at the beginning of ``data`` as one that cannot be read, and return its size.

        Return 0 where it is not whole yet, and where it ends the connection.
        """
        try:
            sizes = remaining(data)
        except ValueError as error:
            sizes, why = (0, 0), str(error)
        if sizes is None or sum(sizes) > len(data):
            return 0
        if sizes[0] and self._unread(bytes(data[: sum(sizes)]), why):
            return sum(sizes)
        self._lost(f"a packet could not be read: {why}", MALFORMED_PACKET)
        self.stopped = True
        return 0

    def _is_large(self, data: memoryview) -> bool:
        """Return whether the packet of which ``data`` is the beginning is too large. If so, its rest is passed over."""
        sizes = remaining(data)
        if sizes is None or sum(sizes) <= self._most:
            return False
        self._large = bytes(data[:KEPT]), sum(sizes)
        self._passing = sum(sizes) - len(data)
        return True

    def _pass_over(self, size: int) -> int:
        """Pass over those of the ``size`` bytes that belong to the large packet, and return how many these are."""
        passed = min(size, self._passing)
        self._passing -= passed
        if not self._passing and self._large is not None:
            (beginning, whole), self._large = self._large, None
            if not self._unread(beginning, whole):
                self._lost(f"a packet of {whole:,} bytes came. At most {self._most:,} are read", PACKET_TOO_LARGE)
                self.stopped = True
        return passed

    def eof_received(self) -> None:
        """Let the transport close."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Record the end, for whatever reason it came."""
        self.gone.set()
        self.writable.set()
        self._lost("the connection broke" if exc is None else f"the connection broke: {one_line(exc)}", None)

    def pause_writing(self) -> None:
        """Let publications wait, since the broker reads more slowly than we write."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """Let publications go on."""
        self.writable.set()
