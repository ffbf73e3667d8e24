"""The framework's own history: it makes the tables of core/records/tables.py, and takes over those that are there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, inspect, text

from core.database.engine import Database
from core.database.migrations import migrate
from core.records.tables import OWN, metadata, sessions


async def difference(database: Database) -> list[Any]:
    def compare(connection: Connection) -> list[Any]:
        opts = {"version_table": OWN.table, "compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=opts), metadata))

    async with database.engine.connect() as connection:
        return await connection.run_sync(compare)


async def tables(database: Database) -> set[str]:
    async with database.engine.connect() as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))


async def to_head(database: Database) -> None:
    await migrate.upgrade(database, OWN, MetaData(), lambda _: None)


async def test_the_migrations_make_exactly_the_tables_that_the_code_uses(database: Database) -> None:
    await to_head(database)
    assert await difference(database) == []
    assert await migrate.pending(database, OWN) == []
    await migrate.downgrade(database, OWN, "base", lambda _: None)
    assert await tables(database) == {OWN.table}
    await to_head(database)
    assert await difference(database) == []


async def test_a_database_of_before_the_migrations_is_taken_over_with_its_rows(database: Database) -> None:
    old = [table for table in metadata.sorted_tables if table.name != "routemq_periodic"]
    async with database.begin() as connection:
        await connection.run_sync(metadata.create_all, tables=old)
        for statement in (
            "DROP INDEX ix_routemq_outbox_client_id_id",
            "DROP INDEX ix_routemq_processed_client_id_broker",
            "CREATE INDEX ix_routemq_outbox_client_id ON routemq_outbox (client_id)",
            "INSERT INTO routemq_sessions VALUES ('me', 'b', 'o', '[]', '2026-01-01 00:00:00', NULL, NULL)",
        ):
            await connection.execute(text(statement))
    assert await difference(database)
    await to_head(database)
    assert await difference(database) == []
    async with database.engine.connect() as connection:
        assert (await connection.execute(sessions.select())).one().client_id == "me"


@pytest.mark.parametrize("times", [6])
async def test_several_at_once_do_it_once(url: str, times: int) -> None:
    databases = [Database(url) for _ in range(times)]
    await asyncio.gather(*map(to_head, databases))
    assert await difference(databases[0]) == []
    for database in databases:
        await database.close()
