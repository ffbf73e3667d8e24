"""Clean databases for tests: each is a copy of one that was set up once."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncEngine


AHEAD = 4
"""Copies of a PostgreSQL database that are made before they are asked for."""


class Clones(Protocol):
    """Where clean databases come from."""

    def take(self) -> str:
        """Give the URL of a clean database."""

    def give_back(self, url: str) -> None:
        """Take note that the database at ``url`` is not used any more: its connections are closed."""

    def close(self) -> None:
        """Remove everything."""


class SqliteClones:
    """Copies of a SQLite file in ``folder``."""

    def __init__(self, folder: Path, set_up: Callable[[str], Awaitable[None]]) -> None:
        self._folder = folder
        self._template = folder / "template.db"
        self._number = 0

        async def made() -> None:
            await set_up(self._url(self._template))

        asyncio.run(made())

    @staticmethod
    def _url(file: Path) -> str:
        return f"sqlite+aiosqlite:///{file}"

    def take(self) -> str:
        """Give the URL of a copy."""
        self._number += 1
        file = self._folder / f"test-{self._number}.db"
        shutil.copyfile(self._template, file)
        return self._url(file)

    def give_back(self, url: str) -> None:
        """Delete the copy."""
        file = make_url(url).database or ""
        for name in (file, f"{file}-wal", f"{file}-shm"):
            Path(name).unlink(missing_ok=True)

    def close(self) -> None:
        """Have nothing to do: the folder is the test run's."""


class PostgresClones:
    """Copies of a template database on the PostgreSQL server of ``url``, whose user may create databases.

    The next few copies are made while a test runs, by a thread with connections of its own: making one takes PostgreSQL as
    long as it takes the disk to have it.
    """

    def __init__(self, url: str, set_up: Callable[[str], Awaitable[None]]) -> None:
        self._server: URL = make_url(url)
        self._prefix = f"routemq_test_{secrets.token_hex(4)}"
        self._number = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="clean databases", daemon=True)
        self._thread.start()
        self._engine: AsyncEngine = create_async_engine(self._server, isolation_level="AUTOCOMMIT", pool_size=AHEAD)
        self._ready: deque[Any] = deque()
        self._dropped: list[Any] = []
        self._call(self._make(f"{self._prefix}_template"))
        self._call(set_up(self._url(f"{self._prefix}_template")))
        for _ in range(AHEAD):
            self._prepare()

    def _url(self, database: str) -> str:
        return self._server.set(database=database).render_as_string(hide_password=False)

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _start(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _make(self, name: str, template: str = "template1") -> str:
        async with self._engine.connect() as connection:
            await connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
        return name

    async def _drop(self, name: str) -> None:
        async with self._engine.connect() as connection:
            await connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))

    def _prepare(self) -> None:
        self._number += 1
        self._ready.append(self._start(self._make(f"{self._prefix}_{self._number}", f"{self._prefix}_template")))

    def take(self) -> str:
        """Give the URL of a copy, and have another one made."""
        name = self._ready.popleft().result()
        self._prepare()
        return self._url(name)

    def give_back(self, url: str) -> None:
        """Have the copy dropped."""
        self._dropped = [drop for drop in self._dropped if not drop.done()]
        self._dropped.append(self._start(self._drop(make_url(url).database or "")))

    def close(self) -> None:
        """Drop the template, and the copies that nobody has taken."""
        while self._ready:
            with suppress(Exception):
                self.give_back(self._url(self._ready.popleft().result()))
        for drop in self._dropped:
            with suppress(Exception):
                drop.result()
        self._call(self._drop(f"{self._prefix}_template"))
        self._call(self._engine.dispose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def clones(url: str, folder: Path, set_up: Callable[[str], Awaitable[None]]) -> Clones:
    """Give where clean databases come from: for an empty ``url`` SQLite files in ``folder``."""
    return PostgresClones(url, set_up) if url.startswith("postgresql") else SqliteClones(folder, set_up)
