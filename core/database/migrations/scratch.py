"""An empty database for a while, to see what migrations make in it."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from core.database.engine import Database, enforce_foreign_keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

_INSUFFICIENT_PRIVILEGE = "42501"


@asynccontextmanager
async def scratch(database: Database) -> AsyncIterator[AsyncConnection]:
    """Open a connection to an empty database of the kind of ``database``. Drop the empty database at the end of the block.

    - On PostgreSQL it is a new database on the same server.
    - If PostgreSQL does not allow the role to create databases, it is a new schema in a transaction that is rolled back.
    - For all other databases it is a SQLite database in memory.
    """
    if database.url.get_backend_name() != "postgresql":
        async with _connection_to(Database("sqlite+aiosqlite://")) as connection:
            await enforce_foreign_keys(connection, on=False)
            yield connection
        return
    name = f"routemq_scratch_{secrets.token_hex(6)}"
    async with _connection_to(_with_one_connection(database)) as server:
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
            async with _connection_to(_with_one_connection(database, name)) as connection:
                yield connection
        finally:
            # A process of an extension may be connected to it.
            forced = " WITH (FORCE)" if (server.dialect.server_version_info or ()) >= (13,) else ""
            await server.execute(text(f"DROP DATABASE {name}{forced}"))


@asynccontextmanager
async def _schema(database: Database, name: str) -> AsyncIterator[AsyncConnection]:
    """Open a connection to ``database`` with the new schema ``name``. Roll the schema back at the end of the block."""
    async with _connection_to(_with_one_connection(database)) as connection:
        await connection.execute(text(f"CREATE SCHEMA {name}"))
        await connection.execute(text(f"SET LOCAL search_path TO {name}"))
        connection.dialect.default_schema_name = name
        try:
            yield connection
        finally:
            await connection.rollback()


def _with_one_connection(database: Database, name: str | None = None) -> Database:
    """Return ``database`` with a pool of its own, or the database ``name`` on the same server."""
    url = database.url if name is None else database.url.set(database=name)
    return Database(
        url.render_as_string(hide_password=False),
        replace(database.options, pool_size=1, max_overflow=0, statement_timeout=None),
    )


@asynccontextmanager
async def _connection_to(database: Database) -> AsyncIterator[AsyncConnection]:
    """Open a connection to ``database``. Close the database at the end of the block."""
    try:
        async with database.engine.connect() as connection:
            yield connection
    finally:
        await database.close()
