"""Brings a database forward and back along a history of migrations, one process at a time."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from alembic import command
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, inspect, text

from core.database.engine import Database, enforce_foreign_keys
from core.database.migrations.compare import differences
from core.database.migrations.history import in_turn
from core.database.migrations.scratch import scratch
from core.database.pool import PoolOptions
from core.errors import MigrationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Any

    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationInfo
    from alembic.script import Script
    from sqlalchemy.engine import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection

    from core.database.migrations.history import History

log = logging.getLogger("routemq.database")

_LOCK = 0x526F7574654D52
_MAX_TOLD = 5


async def at(database: Database, history: History) -> tuple[str, ...]:
    """Give the revisions that the database is at: one, or none before the first."""
    async with database.engine.connect() as connection:
        return await connection.run_sync(_at, history)


async def pending(database: Database, history: History) -> list[Script]:
    """Give the revisions that the database lacks, in order. Raises MigrationError for one that the history does not have."""
    return history.pending(await at(database, history))


async def upgrade(
    database: Database, history: History, metadata: MetaData, say: Callable[[str], None], to: str = "head"
) -> None:
    """Run the revisions up to ``to`` in one transaction, and ``say`` each.

    Tables of ``metadata`` that are there without any revision are taken over where they are what the first one makes.
    Raises MigrationError, and leaves the database as it was, where a revision fails.
    """
    async with _alone(database) as connection:
        first = await _first_tables(database, connection, history, metadata)

        def work(context: EnvironmentContext) -> None:
            if first is not None and not context.get_context().get_current_heads():
                _take_over(context, history, metadata, first, say)
            context.run_migrations()

        await in_turn(connection, _migrate, history, work, say, lambda config: command.upgrade(config, to))


async def downgrade(database: Database, history: History, to: str, say: Callable[[str], None]) -> None:
    """Take revisions back until ``to`` is the latest ("base": until none is left; "-1": one), in one transaction.

    Raises MigrationError, and leaves the database as it was, where a revision fails.
    """
    history.pending(await at(database, history))
    async with _alone(database) as connection:
        await in_turn(
            connection,
            _migrate,
            history,
            lambda context: context.run_migrations(),
            say,
            lambda config: command.downgrade(config, to),
        )


async def missing_tables(database: Database, metadata: MetaData) -> list[str]:
    """Give the names of the tables of ``metadata`` that the database does not have."""
    async with database.engine.connect() as connection:
        found = await connection.run_sync(_there, metadata)
    return [name for name in metadata.tables if name not in found]


@asynccontextmanager
async def at_head(database: Database, history: History) -> AsyncIterator[AsyncConnection]:
    """Give a connection to an empty database of the same kind, brought to the latest revision."""
    async with scratch(database) as connection:
        await _bring(connection, history, "head")
        yield connection


@asynccontextmanager
async def _alone(database: Database) -> AsyncIterator[AsyncConnection]:
    """Give a connection that is in no transaction yet, while no other process migrates.

    On PostgreSQL a lock says so, in a transaction of another connection, since a migration may commit its own
    (``autocommit_block``). On SQLite the transaction itself does, as the only writer; foreign keys are not enforced in
    it, which can only be said before it begins: to alter a table is to drop it there, and its children would go with it.
    """
    if not database.is_sqlite:
        # Both of them new: a pool of one would have the one wait for the other, and what a migration has SET ends with it.
        own = Database(database.url.render_as_string(hide_password=False), PoolOptions(pool_size=2, max_overflow=0))
        try:
            async with own.engine.connect() as guard, own.engine.connect() as connection:
                if own.url.get_backend_name() == "postgresql":
                    lock = {"key": _LOCK}
                    if not (await guard.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), lock)).scalar_one():
                        log.warning("another process migrates the database %s: waiting for it", own)
                        await guard.execute(text("SELECT pg_advisory_xact_lock(:key)"), lock)
                    # Long idle it may be now; and that it goes on has it drop the snapshot of the lock's SELECT, which
                    # CREATE INDEX CONCURRENTLY would wait for.
                    await guard.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
                yield connection
        finally:
            await own.close()
        return
    async with database.engine.connect() as connection:
        await connection.execution_options(routemq_writes=True)
        await enforce_foreign_keys(connection, on=False)
        try:
            yield connection
        finally:
            await connection.rollback()
            await enforce_foreign_keys(connection, on=True)


def _migrate(
    connection: Connection,
    history: History,
    work: Callable[[EnvironmentContext], None],
    say: Callable[[str], None],
    run: Callable[[Config], object],
) -> None:
    def applied(ctx: object, step: MigrationInfo, heads: object, run_args: object) -> None:
        verb = "upgraded to" if step.is_upgrade else "took back"
        say(f"{verb} {step.up_revision_id}")

    def environment(context: EnvironmentContext) -> None:
        context.configure(
            connection=connection,
            version_table=history.table,
            # Alembic takes SQLite for a database that cannot roll tables back, which is said of a driver's old ways.
            transactional_ddl=connection.dialect.name in {"sqlite", "postgresql"},
            on_version_apply=applied,
        )
        with context.begin_transaction():
            orphans = _orphans(connection)
            work(context)
            if len(found := _orphans(connection)) > len(orphans):
                child, _, parent, _ = (found - orphans).pop()
                raise MigrationError(
                    f"the migrations leave rows in {child} whose foreign key to {parent} is broken, and were rolled back"
                )

    with history.told():
        run(history.config(environment))


def _orphans(connection: Connection) -> set[tuple[Any, ...]]:
    """Give SQLite's rows with a broken foreign key: what it does not enforce it must be asked for."""
    if connection.dialect.name != "sqlite":
        return set()
    return {tuple(row) for row in connection.execute(text("PRAGMA foreign_key_check"))}


async def _first_tables(
    database: Database, connection: AsyncConnection, history: History, metadata: MetaData
) -> MetaData | None:
    """Give the tables that the first revision makes, if the database has some of the models' and no revision yet."""
    revisions = history.revisions()
    done = await connection.run_sync(_at, history)
    there = await connection.run_sync(_there, metadata)
    await connection.rollback()
    if done or not there or not revisions:
        return None
    made = MetaData()
    async with scratch(database) as empty:
        await _bring(empty, history, revisions[0].revision)
        for schema in {None, *(table.schema for table in metadata.tables.values())}:
            await empty.run_sync(made.reflect, schema=schema, only=lambda name, _: name != history.table)
    return made if made.tables.keys() & there else None


def _take_over(
    context: EnvironmentContext, history: History, metadata: MetaData, first: MetaData, say: Callable[[str], None]
) -> None:
    """Put the first revision down as done, where the tables that ``run`` has made are the same. Raises MigrationError."""
    connection = context.get_bind()
    revision = history.revisions()[0].revision
    there = _there(connection, first)
    # The ones of models that are younger than the last start; what the others have must be the same anyhow.
    metadata.create_all(
        connection, [table for name, table in metadata.tables.items() if name in first.tables and name not in there]
    )
    differing = differences(
        connection, first, history.table, revision, "the database", {table.name for table in first.tables.values()}
    )
    if differing:
        raise MigrationError(
            f"the database has tables that no migration has made, and that are not what {revision} makes: "
            f"{few(differing)}; give them that shape by hand, or drop them, then run python main.py db upgrade"
        )
    context.get_context().stamp(context.script, revision)
    say(f"took {revision} as done: its tables were there already, made by an earlier start")


async def _bring(connection: AsyncConnection, history: History, to: str) -> None:
    await in_turn(
        connection,
        _migrate,
        history,
        lambda context: context.run_migrations(),
        lambda _: None,
        lambda config: command.upgrade(config, to),
    )


def _at(connection: Connection, history: History) -> tuple[str, ...]:
    return MigrationContext.configure(connection, opts={"version_table": history.table}).get_current_heads()


def _there(connection: Connection, metadata: MetaData) -> set[str]:
    """Give the keys of the tables of ``metadata`` that the database has."""
    inspector = inspect(connection)
    return {key for key, table in metadata.tables.items() if inspector.has_table(table.name, schema=table.schema)}


def few(names: list[str]) -> str:
    """Give the first few, and how many more there are."""
    rest = len(names) - _MAX_TOLD
    return "; ".join(names[:_MAX_TOLD]) + (f"; and {rest} more" if rest > 0 else "")
