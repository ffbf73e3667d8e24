"""A pooler like PgBouncer with pool_mode=transaction, in this process, and PgBouncer itself where it is installed."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import subprocess
import tempfile
from collections import deque
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.support.mosquitto import free_port
from tests.support.tcp_server import TcpServer

KNOWN = {"user", "database", "client_encoding", "datestyle", "timezone", "standard_conforming_strings", "application_name"}
"""Startup parameters that PgBouncer takes. It refuses all others."""
SSL, GSS, CANCEL = 80877103, 80877104, 80877102
ASKS = {b"Q", b"S"}
"""Messages of a client that the server answers with ReadyForQuery: Query and Sync."""


class Message(NamedTuple):
    """One message of PostgreSQL's protocol: its kind, and all of its bytes."""

    kind: bytes
    data: bytes


async def read_message(reader: asyncio.StreamReader) -> Message:
    kind = await reader.readexactly(1)
    length = await reader.readexactly(4)
    return Message(kind, kind + length + await reader.readexactly(int.from_bytes(length) - 4))


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4) + body


class _Server(NamedTuple):
    """A connection to PostgreSQL, and what PostgreSQL said about itself when it was made."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class TransactionPooler:
    """Has ``size`` connections to PostgreSQL behind the socket in ``folder``. Each transaction gets the next of them."""

    def __init__(self, folder: Path, database: str, size: int = 4) -> None:
        self._path = str(folder / ".s.PGSQL.5432")
        self._database = database
        self._size = size
        self._free: deque[_Server] = deque()
        self._freed = asyncio.Condition()
        # What a server says of itself, which a client is told although all servers are busy.
        self._parameters = b""
        self._clients = TcpServer(self._serve)
        self.url = ""

    async def start(self) -> TransactionPooler:
        for _ in range(self._size):
            self._free.append(await self._connect())
        await self._clients.start()
        self.url = f"postgresql+asyncpg://postgres:@127.0.0.1:{self._clients.port}/{self._database}"
        return self

    async def stop(self) -> None:
        await self._clients.stop()
        for server in self._free:
            server.writer.close()
            with contextlib.suppress(OSError):
                await server.writer.wait_closed()

    async def _connect(self) -> _Server:
        reader, writer = await asyncio.open_unix_connection(self._path)
        body = (3 << 16).to_bytes(4) + f"user\0postgres\0database\0{self._database}\0\0".encode()
        writer.write((len(body) + 4).to_bytes(4) + body)
        parameters = b""
        while True:
            said = await read_message(reader)
            assert said.kind != b"E", said
            if said.kind == b"S":
                parameters += said.data
            if said.kind == b"Z":
                self._parameters = parameters
                return _Server(reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not await self._greet(reader, writer):
            return
        while True:
            first = await read_message(reader)
            if first.kind == b"X":
                return
            async with self._freed:
                await self._freed.wait_for(lambda: bool(self._free))
                server = self._free.popleft()
            clean = False
            try:
                clean = await self._transaction(first, reader, writer, server)
            finally:
                if not clean:
                    server.writer.close()
                    server = await self._connect()
                async with self._freed:
                    # The one that was used longest ago is the next.
                    self._free.append(server)
                    self._freed.notify()
            if not clean:
                return

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer the start of a connection. Return whether it was made."""
        while True:
            length = int.from_bytes(await reader.readexactly(4))
            body = await reader.readexactly(length - 4)
            code = int.from_bytes(body[:4])
            if code == CANCEL:
                return False
            if code not in {SSL, GSS}:
                break
            writer.write(b"N")
        words = body[4:].decode().split("\0")
        unknown = set(words[:-2:2]) - KNOWN
        if unknown:
            said = f"unsupported startup parameter: {unknown.pop()}"
            writer.write(message(b"E", f"SFATAL\0C08P01\0M{said}\0\0".encode()))
            return False
        writer.write(message(b"R", (0).to_bytes(4)) + self._parameters)
        writer.write(message(b"K", secrets.token_bytes(8)) + message(b"Z", b"I"))
        return True

    async def _transaction(
        self, first: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: _Server
    ) -> bool:
        """Pass messages on until the transaction has ended. Return whether the server's connection is fit for another."""
        asked = 0

        async def forward() -> None:
            nonlocal asked
            passed = first
            while passed.kind != b"X":
                server.writer.write(passed.data)
                asked += passed.kind in ASKS
                passed = await read_message(reader)
            raise EOFError

        sending = asyncio.create_task(forward())
        try:
            while True:
                hearing = asyncio.create_task(read_message(server.reader))
                await asyncio.wait({hearing, sending}, return_when=asyncio.FIRST_COMPLETED)
                if not hearing.done():
                    hearing.cancel()
                    return False
                said = hearing.result()
                writer.write(said.data)
                asked -= said.kind == b"Z"
                if said.kind == b"Z" and not asked and said.data[-1:] == b"I":
                    break
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, EOFError, OSError):
                await sending
        return True


class PgBouncer:
    """PgBouncer itself, with pool_mode=transaction."""

    PROGRAM = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")

    def __init__(self, folder: Path, database: str, size: int = 4) -> None:
        self._user = folder.owner() if psutil.Process().uids().real == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="rqbouncer"))
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql+asyncpg://postgres:@127.0.0.1:{self._port}/{database}"
        (self._folder / "users").write_text('"postgres" ""\n')
        (self._folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={folder} port=5432 user=postgres\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self._port}\n"
            f"auth_type = any\nauth_file = {self._folder}/users\npool_mode = transaction\ndefault_pool_size = {size}\n"
            "server_round_robin = 1\nunix_socket_dir =\nlogfile =\nmax_client_conn = 500\n"
        )

    async def start(self) -> PgBouncer:
        assert self.PROGRAM is not None
        for path in (self._folder, *self._folder.iterdir()):
            path.chmod(0o755)
        # It refuses to run as root, and only the user of the server may enter the folder with its socket.
        command = [self.PROGRAM, "-q", str(self._folder / "pgbouncer.ini")]
        self._process = subprocess.Popen(command, user=self._user)
        while True:
            assert self._process.poll() is None, "PgBouncer has ended"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                return self

    async def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait, 20)
        shutil.rmtree(self._folder, ignore_errors=True)
