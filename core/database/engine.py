"""The configured database: its engine, and sessions on it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, StaticPool

from core.database.pool import PoolOptions
from core.database.statements.gather import Gather
from core.database.url import check_url
from core.errors import DatabaseUnreachableError, one_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import MetaData
    from sqlalchemy.engine import Connection, Dialect
    from sqlalchemy.ext.asyncio import AsyncConnection

SQLITE_BUSY_TIMEOUT = 10.0
"""Seconds that a statement waits for another connection's transaction on the same SQLite file."""
_CREATE_TABLES_LOCK = 0x526F7574654D51


class Database:
    """One database: an engine with its pool, made without connecting.

    ``echo`` logs each statement. Raise SettingsError for a URL that cannot be right.
    """

    def __init__(self, url: str, pool: PoolOptions | None = None, *, echo: bool = False) -> None:
        pool = pool or PoolOptions()
        self.url = check_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {"echo": echo, "pool_recycle": int(pool.pool_recycle)}
        if self.is_sqlite and self.url.database in {None, "", ":memory:"}:
            # Each connection to ":memory:" would be a database of its own.
            options["poolclass"] = StaticPool
        else:
            options |= {
                "poolclass": AsyncAdaptedQueuePool,
                "pool_size": pool.pool_size,
                "max_overflow": pool.max_overflow,
                "pool_timeout": pool.pool_timeout,
            }
        if self.url.drivername == "postgresql+asyncpg":
            options["connect_args"] = {"server_settings": {"application_name": "routemq"}}
        if self.is_sqlite:
            options["connect_args"] = {"timeout": SQLITE_BUSY_TIMEOUT}
        self.engine: AsyncEngine = create_async_engine(self.url, **options)
        self.session = async_sessionmaker(self.engine, expire_on_commit=False)
        event.listen(self.engine.sync_engine, "do_connect", _connect)
        if self.is_sqlite:
            _listen_sqlite(self.engine)
        self.gathers = bool(self.engine.dialect.insert_executemany_returning_sort_by_parameter_order)
        self.writes = Gather(self.writing)
        self.reads = Gather(self.session)
        self._writers: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """Give a session in a transaction that commits at the end of the block, or rolls back if it raises.

        SQLite takes one writer at a time, and waits by polling: here writers of this process queue up instead.
        """
        if not self.is_sqlite:
            async with self.session() as session, session.begin():
                yield session
            return
        lock = self._writers.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with lock, self.session() as session, session.begin():
            await session.connection(execution_options={"routemq_writes": True})
            yield session

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection in a transaction that commits at the end of the block, or rolls back if it raises."""
        async with self.writing() as session:
            yield await session.connection()

    async def ping(self) -> None:
        """Ask the database for a sign of life. Raises what the driver raises."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def create_tables(self, *metadatas: MetaData) -> None:
        """Create the tables that are missing; safe when several processes do it at once."""
        async with self.begin() as connection:
            if self.url.get_backend_name() == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATE_TABLES_LOCK})
            for metadata in metadatas:
                await connection.run_sync(metadata.create_all)

    async def close(self) -> None:
        """Finish what is gathered in this event loop, and close all connections."""
        await self.writes.idle()
        await self.reads.idle()
        await self.engine.dispose()

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)


async def enforce_foreign_keys(connection: AsyncConnection, *, on: bool) -> None:
    """Have SQLite enforce foreign keys on ``connection``, or not; only between transactions is it heard."""
    # Past SQLAlchemy, which would begin a transaction.
    driver = (await connection.get_raw_connection()).driver_connection
    if driver is not None:
        await (await driver.execute(f"PRAGMA foreign_keys={'ON' if on else 'OFF'}")).close()


def _connect(dialect: Dialect, record: object, arguments: list[Any], options: dict[str, Any]) -> object:
    """Connect, and say of a failure that the database had it: a handler's own ConnectionRefusedError looks the same."""
    try:
        return dialect.connect(*arguments, **options)
    except OSError as error:
        raise DatabaseUnreachableError(f"the database cannot be reached: {one_line(error)}") from error


def _listen_sqlite(engine: AsyncEngine) -> None:
    """Have SQLite's transactions begin with the first statement, as writers where that writes (IMMEDIATE).

    A transaction that begins as a reader and writes later fails at once if another one wrote meanwhile.
    """

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, record: object) -> None:
        # The driver would begin transactions by its own rules.
        connection.isolation_level = None
        cursor = connection.cursor()
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=NORMAL")
            cursor.execute("PRAGMA foreign_keys=ON")
            cursor.close()
        except BaseException:
            # The pool has not taken it yet and would leave it, and its thread, behind.
            connection.close()
            raise

    @event.listens_for(engine.sync_engine, "invalidate")
    def invalidate(connection: Any, record: object, exception: BaseException | None) -> None:
        # Closing is not enough: SQLite keeps the transaction, and its lock, while the cursor of a cancelled call exists.
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
