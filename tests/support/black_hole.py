"""A way to the database that can be made to swallow everything, without a word to either side."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from tests.support.tcp_server import TcpServer

if TYPE_CHECKING:
    from pathlib import Path


class BlackHole:
    """Passes bytes between whoever connects to ``port`` and the socket ``path``, until it is told to swallow them.

    What was sent meanwhile is lost, as on a broken line: the connections of that time never work again.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._swallowing = False
        self._server = TcpServer(self._serve)
        self.port = 0
        self.swallowed = 0

    async def start(self) -> BlackHole:
        await self._server.start()
        self.port = self._server.port
        return self

    def swallow(self) -> None:
        self._swallowing = True

    def mend(self) -> None:
        """Pass on what comes on connections that are made from now on."""
        self._swallowing = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dead = asyncio.Event()
        if self._swallowing:
            dead.set()
        other_reader, other_writer = await asyncio.open_unix_connection(self._path)
        try:
            await asyncio.gather(self._pass(reader, other_writer, dead), self._pass(other_reader, writer, dead))
        finally:
            other_writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dead: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if self._swallowing:
                    dead.set()
                if dead.is_set():
                    self.swallowed += len(data)
                else:
                    writer.write(data)
                    await writer.drain()
        if not dead.is_set():
            writer.close()

    async def stop(self) -> None:
        await self._server.stop()
