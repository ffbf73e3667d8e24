"""Running migrations: a database goes forward and back along a history, in one process at a time."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from alembic import command
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, inspect, text

from core.database.engine import Database, enforce_foreign_keys
from core.database.migrations.compare import differences
from core.database.migrations.history import in_turn
from core.database.migrations.scratch import scratch
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
"""Key of PostgreSQL's advisory lock that one process at a time holds while it migrates."""
_MAX_NAMES = 5
"""Names that a message lists."""


async def at(database: Database, history: History) -> tuple[str, ...]:
    """Return the revisions that the database is at: one, or none before the first one."""
    async with database.engine.connect() as connection:
        return await connection.run_sync(_revisions_at, history)


async def pending(database: Database, history: History) -> list[Script]:
    """Return the revisions that the database lacks, in the order in which they run.

    Raise MigrationError if the database is at a revision that the history does not have.
    """
    return history.pending(await at(database, history))


async def upgrade(
    database: Database, history: History, metadata: MetaData, say: Callable[[str], None], to: str = "head"
) -> None:
    """Run the revisions up to ``to`` in one transaction.

    - ``database``: the database to upgrade.
    - ``history``: the history of the revisions.
    - ``metadata``: the tables of the models.
    - ``say``: called with a line for each revision.
    - ``to``: the identifier of the last revision to run, or "head".

    If the database has tables of ``metadata`` and no revision, and they are what the first revision makes, that revision
    counts as done. Raise MigrationError if a revision fails. The database is then as it was before.
    """
    async with _exclusive(database) as connection:
        first = await _first_tables(database, connection, history, metadata)

        def work(context: EnvironmentContext) -> None:
            if first is not None and not context.get_context().get_current_heads():
                _take_over(context, history, metadata, first, say)
            context.run_migrations()

        await in_turn(connection, _migrate, history, work, say, lambda config: command.upgrade(config, to))


async def downgrade(database: Database, history: History, to: str, say: Callable[[str], None]) -> None:
    """Take revisions back in one transaction.

    - ``database``: the database to downgrade.
    - ``history``: the history of the revisions.
    - ``to``: the identifier of the revision that is the latest afterwards, "base" for none, or "-1" for the one before.
    - ``say``: called with a line for each revision.

    Raise MigrationError if a revision fails. The database is then as it was before.
    """
    history.pending(await at(database, history))
    async with _exclusive(database) as connection:
        await in_turn(
            connection,
            _migrate,
            history,
            lambda context: context.run_migrations(),
            say,
            lambda config: command.downgrade(config, to),
        )


async def missing_tables(database: Database, metadata: MetaData) -> list[str]:
    """Return the names of the tables of ``metadata`` that the database does not have."""
    async with database.engine.connect() as connection:
        found = await connection.run_sync(_existing_tables, metadata)
    return [name for name in metadata.tables if name not in found]


@asynccontextmanager
async def at_head(database: Database, history: History) -> AsyncIterator[AsyncConnection]:
    """Open a connection to an empty database of the kind of ``database``, upgraded to the latest revision."""
    async with scratch(database) as connection:
        await _upgrade_empty(connection, history, "head")
        yield connection


@asynccontextmanager
async def _exclusive(database: Database) -> AsyncIterator[AsyncConnection]:
    """Open a connection without a transaction, while no other process migrates.

    - On PostgreSQL, another connection holds a lock in a transaction, since a migration may commit its own transaction
      (``autocommit_block``).
    - On SQLite, the transaction of the migrations is the only one that writes. Foreign keys are not enforced in it,
      because a table is altered by dropping it, which would delete the rows that refer to it. They can only be turned off
      before a transaction begins.
    """
    if not database.is_sqlite:
        # In a pool of one connection, one would wait for the other. What a migration has SET ends with its connection.
        options = replace(database.options, pool_size=2, max_overflow=0, statement_timeout=None)
        own = Database(database.url.render_as_string(hide_password=False), options)
        try:
            async with own.engine.connect() as guard, own.engine.connect() as connection:
                if own.url.get_backend_name() == "postgresql":
                    lock = {"key": _LOCK}
                    if not (await guard.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), lock)).scalar_one():
                        log.warning("another process migrates the database %s. Waiting until it has finished", own)
                        await guard.execute(text("SELECT pg_advisory_xact_lock(:key)"), lock)
                    # The guard may be idle for a long time. A second statement also has it drop the snapshot of the first
                    # one, for which CREATE INDEX CONCURRENTLY would wait.
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
    """Call ``run``, a command of Alembic, whose environment calls ``work`` in a transaction of ``connection``.

    ``say`` is called with a line for each revision. Raise MigrationError.
    """

    def applied(ctx: object, step: MigrationInfo, heads: object, run_args: object) -> None:
        verb = "upgraded to" if step.is_upgrade else "took back"
        say(f"{verb} {step.up_revision_id}")

    def environment(context: EnvironmentContext) -> None:
        context.configure(
            connection=connection,
            version_table=history.table,
            # Alembic takes SQLite for a database that cannot roll back changes of tables, as its driver once could not.
            transactional_ddl=connection.dialect.name in {"sqlite", "postgresql"},
            on_version_apply=applied,
        )
        with context.begin_transaction():
            orphans = _orphans(connection)
            work(context)
            if len(found := _orphans(connection)) > len(orphans):
                child, _, parent, _ = (found - orphans).pop()
                raise MigrationError(
                    f"the migrations leave rows in {child} whose foreign key to {parent} is broken, and were rolled back. "
                    "Change or delete these rows in the migration"
                )

    with history.migration_errors():
        run(history.config(environment))


def _orphans(connection: Connection) -> set[tuple[Any, ...]]:
    """Return the rows with a broken foreign key on SQLite, which does not enforce foreign keys in a migration."""
    if connection.dialect.name != "sqlite":
        return set()
    return {tuple(row) for row in connection.execute(text("PRAGMA foreign_key_check"))}


async def _first_tables(
    database: Database, connection: AsyncConnection, history: History, metadata: MetaData
) -> MetaData | None:
    """Return the tables that the first revision makes, if the database has some tables of ``metadata`` and no revision."""
    revisions = history.revisions()
    done = await connection.run_sync(_revisions_at, history)
    existing = await connection.run_sync(_existing_tables, metadata)
    await connection.rollback()
    if done or not existing or not revisions:
        return None
    made = MetaData()
    async with scratch(database) as empty:
        await _upgrade_empty(empty, history, revisions[0].revision)
        for schema in {None, *(table.schema for table in metadata.tables.values())}:
            await empty.run_sync(made.reflect, schema=schema, only=lambda name, _: name != history.table)
    return made if made.tables.keys() & existing else None


def _take_over(
    context: EnvironmentContext, history: History, metadata: MetaData, first: MetaData, say: Callable[[str], None]
) -> None:
    """Record the first revision as done, since an earlier ``run`` has created its tables.

    - ``context``: Alembic's environment, in the transaction of the migrations.
    - ``history``: the history of the revisions.
    - ``metadata``: the tables of the models.
    - ``first``: the tables that the first revision makes.
    - ``say``: called with a line that says so.

    Raise MigrationError if the tables of the database are not those of ``first``.
    """
    connection = context.get_bind()
    revision = history.revisions()[0].revision
    existing = _existing_tables(connection, first)
    # Models that are newer than the last start have no tables yet. Only tables that exist can differ.
    metadata.create_all(
        connection, [table for name, table in metadata.tables.items() if name in first.tables and name not in existing]
    )
    differing = differences(
        connection, first, history.table, revision, "the database", {table.name for table in first.tables.values()}
    )
    if differing:
        raise MigrationError(
            f"the database has tables that no migration has made, and that are not what {revision} makes: "
            f"{few(differing)}. Change them by hand, or drop them, then run python main.py db upgrade"
        )
    context.get_context().stamp(context.script, revision)
    say(f"took {revision} as done: its tables were there already, made by an earlier start")


async def _upgrade_empty(connection: AsyncConnection, history: History, to: str) -> None:
    """Run the revisions up to ``to`` in the empty database at ``connection``."""
    await in_turn(
        connection,
        _migrate,
        history,
        lambda context: context.run_migrations(),
        lambda _: None,
        lambda config: command.upgrade(config, to),
    )


def _revisions_at(connection: Connection, history: History) -> tuple[str, ...]:
    return MigrationContext.configure(connection, opts={"version_table": history.table}).get_current_heads()


def _existing_tables(connection: Connection, metadata: MetaData) -> set[str]:
    """Return the keys of the tables of ``metadata`` that the database has."""
    inspector = inspect(connection)
    return {key for key, table in metadata.tables.items() if inspector.has_table(table.name, schema=table.schema)}


def few(names: list[str]) -> str:
    """Return the first five of ``names`` as text, and how many more there are."""
    rest = len(names) - _MAX_NAMES
    return "; ".join(names[:_MAX_NAMES]) + (f"; and {rest} more" if rest > 0 else "")
