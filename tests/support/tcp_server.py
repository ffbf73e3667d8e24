"""A TCP server of a test's own that leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class TcpServer:
    """Runs ``serve`` for each connection to ``port`` of 127.0.0.1. ``stop`` returns once every one of them has ended."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._server: asyncio.Server | None = None
        self._running: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.port = 0

    async def start(self) -> TcpServer:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._run(reader, writer))
        self._running[task] = writer
        task.add_done_callback(self._running.pop)

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # A client may hang up at any moment.
            with suppress(OSError, EOFError):
                await self._serve(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        running = dict(self._running)
        for task, writer in running.items():
            writer.transport.abort()
            task.cancel()
        if running:
            await asyncio.wait(running)


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[int]:
    """Run ``serve`` for each connection, and yield the port."""
    server = await TcpServer(serve).start()
    try:
        yield server.port
    finally:
        await server.stop()
