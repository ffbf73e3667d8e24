"""New migrations: what is written to their files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.script import Script

from core.database.migrations.compare import options
from core.database.migrations.history import in_turn
from core.database.migrations.migrate import at_head
from core.errors import MigrationError

if TYPE_CHECKING:
    from typing import Any

    from alembic.runtime.environment import EnvironmentContext
    from sqlalchemy import MetaData
    from sqlalchemy.engine import Connection

    from core.database.engine import Database
    from core.database.migrations.history import History


async def make_revision(database: Database, history: History, metadata: MetaData, message: str, *, empty: bool) -> Path:
    """Write a revision, and return its file.

    - ``database``: the database whose kind matters. The earlier revisions run in an empty one, not in this one.
    - ``history``: the history that the revision is added to.
    - ``metadata``: the tables that there are to be after the revision.
    - ``message``: what the revision does, in a few words.
    - ``empty``: whether the revision does nothing yet, and is filled in by hand.

    Raise MigrationError if an earlier revision fails, or if the earlier ones make the tables of ``metadata`` already.
    """
    name = history.next_id(message)
    # The message is written into a docstring.
    message = " ".join(message.replace("\\", "/").replace('"', "'").split())
    history.versions.mkdir(parents=True, exist_ok=True)
    if empty:
        with history.migration_errors("cannot be made"):
            written = command.revision(history.config(), message, rev_id=name)
        made = written if isinstance(written, Script) else None
    else:
        async with at_head(database, history) as connection:
            made = await in_turn(connection, _autogenerate, history, metadata, message, name)
    if made is None:
        raise MigrationError(
            "the models have no change for a migration. Give --empty to write a migration that is filled in by hand"
        )
    return Path(made.path)


def _autogenerate(connection: Connection, history: History, metadata: MetaData, message: str, name: str) -> Script | None:
    def environment(context: EnvironmentContext) -> None:
        context.configure(connection=connection, version_table=history.table, **options(metadata))
        with context.begin_transaction():
            context.run_migrations()

    def drop_empty(context: Any, revision: Any, directives: list[Any]) -> None:
        if directives[0].upgrade_ops.is_empty():
            directives.clear()

    with history.migration_errors("cannot be made"):
        made = command.revision(
            history.config(environment),
            message,
            autogenerate=True,
            rev_id=name,
            process_revision_directives=drop_empty,
        )
    return made if isinstance(made, Script) else None
