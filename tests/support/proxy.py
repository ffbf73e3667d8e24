"""A TCP proxy whose connections can be cut."""

from __future__ import annotations

import asyncio
import contextlib

from tests.support.tcp_server import TcpServer


class Proxy:
    """Passes bytes between whoever connects to ``port`` and 127.0.0.1:``target``."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._kept: list[asyncio.StreamWriter] = []
        self._server = TcpServer(self._serve)
        self.port = 0

    async def start(self) -> Proxy:
        await self._server.start()
        self.port = self._server.port
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, other_writer}
        try:
            await asyncio.gather(self._pass(reader, other_writer), self._pass(other_reader, writer))
        finally:
            self._writers -= {writer, other_writer}
            if other_writer not in self._kept:
                other_writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        if writer in self._kept:
            return
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def cut(self) -> None:
        """Cut all connections, without a word to either side."""
        for writer in list(self._writers):
            writer.transport.abort()

    def cut_ours(self) -> None:
        """Cut all connections to those who connected; the other side does not hear of it."""
        self._kept += [writer for writer in self._writers if writer.get_extra_info("peername")[1] == self._target]
        for writer in self._writers - set(self._kept):
            writer.transport.abort()

    async def stop(self) -> None:
        self.cut()
        for writer in self._kept:
            writer.transport.abort()
        await self._server.stop()
