"""The databases in which the systems of a benchmark store their rows, and in which the rows are counted."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Protocol

import asyncpg

from tests.support.postgres import Postgres

if TYPE_CHECKING:
    from pathlib import Path

TABLE = """
CREATE TABLE readings (
    id bigserial PRIMARY KEY, device_id text NOT NULL, number bigint NOT NULL, value double precision NOT NULL,
    unit text NOT NULL, sent_at double precision NOT NULL
)
"""


class Store(Protocol):
    """One empty database with the table ``readings``."""

    url: str

    async def count(self) -> int:
        """Return the number of rows."""

    async def empty(self) -> None:
        """Delete all rows."""

    async def latencies(self) -> list[float]:
        """Return the milliseconds from publish to commit of each row. Return none where the database does not tell."""

    async def close(self) -> None:
        """Close the connection."""


class PostgresStore:
    """PostgreSQL, which keeps the time of each commit."""

    def __init__(self, url: str, connection: asyncpg.Connection) -> None:
        self.url = url
        self._connection = connection

    @classmethod
    async def make(cls, server: Postgres) -> PostgresStore:
        url = server.new_database()
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        await connection.execute(TABLE)
        return cls(url, connection)

    async def count(self) -> int:
        return int(await self._connection.fetchval("SELECT count(*) FROM readings"))

    async def empty(self) -> None:
        await self._connection.execute("TRUNCATE readings")

    async def latencies(self) -> list[float]:
        sql = "SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 - sent_at FROM readings"
        return [row[0] * 1000 for row in await self._connection.fetch(sql)]

    async def close(self) -> None:
        await self._connection.close()


class SqliteStore:
    """A SQLite file. The worker makes its table."""

    def __init__(self, file: Path) -> None:
        self.url = f"sqlite+aiosqlite:///{file}"
        self._file = file

    def _execute(self, sql: str) -> int:
        connection = sqlite3.connect(self._file, timeout=30, isolation_level=None)
        try:
            return int((connection.execute(sql).fetchone() or (0,))[0])
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return 0
        finally:
            connection.close()

    async def count(self) -> int:
        return self._execute("SELECT count(*) FROM readings")

    async def empty(self) -> None:
        self._execute("DELETE FROM readings")

    async def latencies(self) -> list[float]:
        return []

    async def close(self) -> None:
        return


def new_server() -> Postgres:
    """Return a PostgreSQL server that keeps the time of each commit."""
    server = Postgres()
    server._server.psql("ALTER SYSTEM SET track_commit_timestamp = on")
    server.stop()
    server.start()
    return server
