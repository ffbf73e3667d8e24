"""A database: its engine with a pool of connections, and sessions on it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager, nullcontext, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, StaticPool

from core.database.driver.connect import SQLITE_BUSY_TIMEOUT, connect_arguments, listen
from core.database.pool import PoolOptions
from core.database.rounds import Rounds
from core.database.statements.gather import Gather
from core.database.url import check_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import MetaData
    from sqlalchemy.engine import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection

SQLITE_PAUSE = 0.01
"""Seconds until SQLite is asked again for what its busy timeout does not wait for."""
_CREATE_TABLES_LOCK = 0x526F7574654D51
"""Key of PostgreSQL's advisory lock that one process at a time holds while it creates tables."""


class Database:
    """A database at a URL: an engine, its pool, and what gathers statements. It connects with the first statement.

    - ``url``: the URL of the database, with an asynchronous driver.
    - ``pool``: the options of the pool of connections.
    - ``echo``: whether each statement is logged.

    Raise SettingsError for a URL that cannot be used.
    """

    def __init__(self, url: str, pool: PoolOptions | None = None, *, echo: bool = False) -> None:
        self.options = pool = pool or PoolOptions()
        self.url = check_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {"echo": echo, "pool_recycle": int(pool.pool_recycle)}
        self._is_in_memory = self.is_sqlite and self.url.database in {None, "", ":memory:"}
        if self._is_in_memory:
            # With a pool of several connections, each would be a database of its own in memory.
            options["poolclass"] = StaticPool
        else:
            options |= {
                "poolclass": AsyncAdaptedQueuePool,
                "pool_size": pool.pool_size,
                "max_overflow": pool.max_overflow,
                "pool_timeout": pool.pool_timeout,
            }
        options["connect_args"] = connect_arguments(self.url, pool)
        self.engine: AsyncEngine = create_async_engine(self.url, **options)
        self.session = async_sessionmaker(self.engine, expire_on_commit=False)
        listen(self.engine, pool)
        if self.is_sqlite:
            _listen_sqlite(self.engine)
        # Gathered calls need the rows of an INSERT of many back in the order of their values.
        self.gathers = bool(self.engine.dialect.insert_executemany_returning_sort_by_parameter_order)
        self.writes = Gather(self.writing)
        self.reads = Gather(self.reading)
        # What it has answered so far: transactions that were committed, and reads.
        self.answers = 0
        self._most_alone = max((pool.pool_size + pool.max_overflow) // 2, 1)
        self._rounds: WeakKeyDictionary[asyncio.AbstractEventLoop, Rounds] = WeakKeyDictionary()
        self._writers: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    def rounds(self) -> Rounds:
        """Return the transactions of the handlers' runs in the running event loop."""
        loop = asyncio.get_running_loop()
        found = self._rounds.get(loop)
        if found is None:
            found = self._rounds[loop] = Rounds(self.writing, self._most_alone)
        return found

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """Open a session in a transaction. It commits at the end of the block, and rolls back if the block raises.

        SQLite allows one writer at a time, and the others poll until it has ended. Therefore the writers of this process
        wait for a lock instead.
        """
        if not self.is_sqlite:
            async with self.session() as session, session.begin():
                yield session
            self.answers += 1
            return
        async with self._writer(), self.session() as session, session.begin():
            await session.connection(execution_options={"routemq_writes": True})
            yield session
        self.answers += 1

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """Open a session that reads. In memory there is one connection, so that it waits for the transaction under way."""
        async with self._writer() if self._is_in_memory else nullcontext(), self.session() as session:
            yield session
        self.answers += 1

    def _writer(self) -> asyncio.Lock:
        return self._writers.setdefault(asyncio.get_running_loop(), asyncio.Lock())

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection in a transaction. It commits at the end of the block, and rolls back if the block raises."""
        async with self.writing() as session:
            yield await session.connection()

    async def ping(self) -> None:
        """Check that the database answers. Raise the driver's error if it does not."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def create_tables(self, *metadatas: MetaData) -> None:
        """Create the tables that are missing. Several processes may do so at the same time."""
        async with self.begin() as connection:
            if self.url.get_backend_name() == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATE_TABLES_LOCK})
            for metadata in metadatas:
                await connection.run_sync(metadata.create_all)

    async def close(self) -> None:
        """Carry out the gathered calls of this event loop, and close all connections."""
        await self.writes.idle()
        await self.reads.idle()
        await self.engine.dispose()

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)


async def enforce_foreign_keys(connection: AsyncConnection, *, on: bool) -> None:
    """Turn SQLite's enforcement of foreign keys on ``connection`` on or off. It has no effect within a transaction."""
    # The statement bypasses SQLAlchemy, which would begin a transaction first.
    driver = (await connection.get_raw_connection()).driver_connection
    if driver is not None:
        await (await driver.execute(f"PRAGMA foreign_keys={'ON' if on else 'OFF'}")).close()


def _write_ahead(connection: Any, cursor: Any) -> None:
    """Turn on SQLite's write-ahead log, which stays on in the file. Wait for others that do so at the same moment.

    Where two connections to a new file would wait for each other, SQLite refuses this at once, whatever its busy timeout.
    """
    until = monotonic() + SQLITE_BUSY_TIMEOUT
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > until:
                raise
            connection.run_async(lambda _: asyncio.sleep(SQLITE_PAUSE))
        else:
            return


def _listen_sqlite(engine: AsyncEngine) -> None:
    """Begin SQLite's transactions with their first statement, and as a writer (IMMEDIATE) if that statement writes.

    A transaction that begins as a reader and writes later fails at once if another one has written meanwhile.
    """
    # The number of the row that was inserted last says nothing about a row that a trigger leaves out.
    engine.dialect.favor_returning_over_lastrowid = True

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, record: object) -> None:
        # Otherwise the driver would begin transactions by its own rules.
        connection.isolation_level = None
        cursor = connection.cursor()
        try:
            _write_ahead(connection, cursor)
            cursor.execute("PRAGMA synchronous=NORMAL")
            cursor.execute("PRAGMA foreign_keys=ON")
            cursor.close()
        except BaseException:
            # The pool does not have the connection yet, and would not close it and its thread.
            connection.close()
            raise

    @event.listens_for(engine.sync_engine, "invalidate")
    def invalidate(connection: Any, record: object, exception: BaseException | None) -> None:
        # Closing is not enough. SQLite keeps the transaction and its lock while the cursor of a cancelled call exists.
        if exception is not None:
            with suppress(Exception):
                connection.rollback()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        connection.info["routemq_begin"] = True

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def first_statement(
        connection: Connection, cursor: Any, statement: str, parameters: object, context: object, executemany: object
    ) -> None:
        if connection.info.pop("routemq_begin", False):
            writes = connection.get_execution_options().get("routemq_writes", False)
            reads = not writes and statement.lstrip()[:6].upper() in {"SELECT", "PRAGMA", "EXPLAI"}
            cursor.execute("BEGIN" if reads else "BEGIN IMMEDIATE")

    @event.listens_for(engine.sync_engine, "savepoint")
    def savepoint(connection: Connection, name: str) -> None:
        if connection.info.pop("routemq_begin", False):
            connection.connection.cursor().execute("BEGIN IMMEDIATE")
