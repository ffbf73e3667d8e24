"""An empty database of the same kind, to see in it what migrations make."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from core.database.engine import Database, enforce_foreign_keys
from core.database.pool import PoolOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

_INSUFFICIENT_PRIVILEGE = "42501"


@asynccontextmanager
async def scratch(database: Database) -> AsyncIterator[AsyncConnection]:
    """Give a connection to an empty database, which is gone after the block.

    For PostgreSQL one on the same server, or, where the role may not CREATE DATABASE, a new schema in a transaction that is
    rolled back; for all else one of SQLite in memory.
    """
    if database.url.get_backend_name() != "postgresql":
        async with _connected(Database("sqlite+aiosqlite://")) as connection:
            await enforce_foreign_keys(connection, on=False)
            yield connection
        return
    name = f"routemq_scratch_{secrets.token_hex(6)}"
    async with _connected(_of_its_own(database)) as server:
        await server.execution_options(isolation_level="AUTOCOMMIT")
        try:
            await server.execute(text(f"CREATE DATABASE {name}"))
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _INSUFFICIENT_PRIVILEGE:
                raise
            made = False
        else:
            made = True
        if not made:
            async with _schema(database, name) as connection:
                yield connection
            return
        try:
            async with _connected(_of_its_own(database, name)) as connection:
                yield connection
        finally:
            # An extension may have a process of its own in there.
            forced = " WITH (FORCE)" if (server.dialect.server_version_info or ()) >= (13,) else ""
            await server.execute(text(f"DROP DATABASE {name}{forced}"))


@asynccontextmanager
async def _schema(database: Database, name: str) -> AsyncIterator[AsyncConnection]:
    async with _connected(_of_its_own(database)) as connection:
        await connection.execute(text(f"CREATE SCHEMA {name}"))
        await connection.execute(text(f"SET LOCAL search_path TO {name}"))
        connection.dialect.default_schema_name = name
        try:
            yield connection
        finally:
            await connection.rollback()


def _of_its_own(database: Database, name: str | None = None) -> Database:
    url = database.url if name is None else database.url.set(database=name)
    return Database(url.render_as_string(hide_password=False), PoolOptions(pool_size=1, max_overflow=0))


@asynccontextmanager
async def _connected(database: Database) -> AsyncIterator[AsyncConnection]:
    try:
        async with database.engine.connect() as connection:
            yield connection
    finally:
        await database.close()
