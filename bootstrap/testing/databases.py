"""Clean databases for tests. Each is a copy of a template that was set up once."""

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


MAX_AHEAD = 4
"""Copies of a PostgreSQL database that are made before a test asks for them."""


class CleanDatabases(Protocol):
    """Lends a clean database to each test."""

    def take(self) -> str:
        """Return the URL of a clean database."""

    def give_back(self, url: str) -> None:
        """Remove the database at ``url``. The test has closed its connections."""

    def close(self) -> None:
        """Remove everything that is left."""


class SqliteCopies:
    """Copies of a SQLite file in ``folder``. ``set_up`` makes the tables of the template at a URL."""

    def __init__(self, folder: Path, set_up: Callable[[str], Awaitable[None]]) -> None:
        self._folder = folder
        self._template = folder / "template.db"
        self._number = 0

        async def make_template() -> None:
            await set_up(self._url(self._template))

        asyncio.run(make_template())

    @staticmethod
    def _url(file: Path) -> str:
        return f"sqlite+aiosqlite:///{file}"

    def take(self) -> str:
        """Make a copy and return its URL."""
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
        """Do nothing. The folder belongs to the test run, and pytest removes it."""


class PostgresCopies:
    """Copies of a template database on the PostgreSQL server of ``url``, whose user may create databases.

    ``set_up`` makes the tables of the template at a URL. A copy takes time, because PostgreSQL waits for the disk. So the
    next few copies are made while a test runs, by a thread with connections of its own.
    """

    def __init__(self, url: str, set_up: Callable[[str], Awaitable[None]]) -> None:
        self._server: URL = make_url(url)
        self._prefix = f"routemq_test_{secrets.token_hex(4)}"
        self._number = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="clean databases", daemon=True)
        self._thread.start()
        self._engine: AsyncEngine = create_async_engine(self._server, isolation_level="AUTOCOMMIT", pool_size=MAX_AHEAD)
        self._ready: deque[Any] = deque()
        self._dropped: list[Any] = []
        self._call(self._create(f"{self._prefix}_template"))
        self._call(set_up(self._url(f"{self._prefix}_template")))
        for _ in range(MAX_AHEAD):
            self._copy_ahead()

    def _url(self, database: str) -> str:
        return self._server.set(database=database).render_as_string(hide_password=False)

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _start(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _create(self, name: str, template: str = "template1") -> str:
        async with self._engine.connect() as connection:
            await connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
        return name

    async def _drop(self, name: str) -> None:
        async with self._engine.connect() as connection:
            await connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))

    def _copy_ahead(self) -> None:
        self._number += 1
        self._ready.append(self._start(self._create(f"{self._prefix}_{self._number}", f"{self._prefix}_template")))

    def take(self) -> str:
        """Return the URL of a copy, and start to make another one."""
        name = self._ready.popleft().result()
        self._copy_ahead()
        return self._url(name)

    def give_back(self, url: str) -> None:
        """Start to drop the copy."""
        self._dropped = [drop for drop in self._dropped if not drop.done()]
        self._dropped.append(self._start(self._drop(make_url(url).database or "")))

    def close(self) -> None:
        """Drop the template and the copies that no test has taken."""
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


def clean_databases(url: str, folder: Path, set_up: Callable[[str], Awaitable[None]]) -> CleanDatabases:
    """Return copies on the PostgreSQL server of ``url``, or copies of a SQLite file in ``folder`` if ``url`` is empty."""
    return PostgresCopies(url, set_up) if url.startswith("postgresql") else SqliteCopies(folder, set_up)
