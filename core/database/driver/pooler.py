"""Whether a pooler stands before the server, which gives each transaction any of its connections, such as PgBouncer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from core.database.driver.connect import ASYNCPG, TRANSACTION, connect_arguments, listen

if TYPE_CHECKING:
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncConnection

    from core.database.pool import PoolOptions

PATIENCE = 5.0
"""Seconds that a second connection waits for a server connection, which the first one may have for itself."""
TRIES = 5


async def changes_connections(url: URL, options: PoolOptions) -> bool:
    """Return whether a pooler gives transactions of one connection to ``url`` different connections to the server.

    PostgreSQL tells a connection the process that serves it. A pooler invents that number, and SQL knows the true one.
    """
    if url.drivername != ASYNCPG:
        return False
    # In this mode it works with and without a pooler.
    options = replace(options, pooler=TRANSACTION)
    arguments = connect_arguments(url, options)
    engine = create_async_engine(url, poolclass=NullPool, connect_args=arguments)
    listen(engine, options)
    try:
        async with engine.connect() as first:
            driver: Any = (await first.get_raw_connection()).driver_connection
            served_by = await _process(first)
            await first.rollback()
            if driver.get_server_pid() == served_by:
                return False
            try:
                async with asyncio.timeout(PATIENCE), engine.connect() as second:
                    return await _share(first, second, served_by)
            except TimeoutError:
                # The first one kept the only connection to the server for itself.
                return False
    finally:
        await engine.dispose()


async def _share(first: AsyncConnection, second: AsyncConnection, served_by: int) -> bool:
    """Return whether ``first``, which ``served_by`` has served, and ``second`` use the same connections in turns."""
    for _ in range(TRIES):
        taken = await _process(second)
        if taken == served_by:
            return True
        again = await _process(first)
        await first.rollback()
        await second.rollback()
        if again != served_by:
            return True
    return False


async def _process(connection: AsyncConnection) -> int:
    return int((await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one())
