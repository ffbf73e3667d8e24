"""The bytes of one MQTT 5 connection, cut into packets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import mqtt5

from core.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

BUFFER = 256 * 1024
"""Bytes of a connection's buffer, for as long as no packet needs more."""


class Wire(asyncio.BufferedProtocol):
    """The bytes of one connection, cut into packets in one pass over what was read.

    - ``packet``: called with each packet.
    - ``lost``: called with the reason when the connection is lost, and with the reason code to be sent for a packet that
      cannot be read.
    """

    def __init__(self, packet: Callable[[Any], None], lost: Callable[[str, int | None], None]) -> None:
        self._packet = packet
        self._lost = lost
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
        view = self._view
        start, end = 0, self._end + nbytes
        read, take = mqtt5.read, self._packet
        while start < end and not self.stopped:
            try:
                packet, size = read(view[start:end])
            except IndexError:
                break
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - a topic that is not UTF-8 makes the codec panic, beyond Exception
                self._end = 0
                self._lost(f"a packet could not be read: {one_line(error, name=False)}", 0x81)
                return
            start += size
            take(packet)
        rest = end - start
        if start and rest:
            view[:rest] = bytes(view[start:end])
        self._end = rest
        if not rest and len(view) > BUFFER:
            self._view = memoryview(bytearray(BUFFER))

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
