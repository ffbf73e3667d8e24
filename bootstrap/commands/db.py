"""The command `db`: run migrations, take them back, write new ones, and show those there are."""

from __future__ import annotations

import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bootstrap import storage
from core.database.current import configured
from core.database.migrations import migrate
from core.database.migrations.compare import differences
from core.database.migrations.revision import make_revision
from core.errors import MigrationError
from core.model import Base, Model
from core.records.tables import OWN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from rich.console import Console

    from config.settings import Settings
    from core.database.engine import Database


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Database]:
    """Yield the database. Raise MigrationError if there is none. Raise StartError if it cannot be used."""
    storage.configure(settings)
    if not Model._is_enabled:
        raise MigrationError("DATABASE_URL is empty, so there is nothing to migrate")
    try:
        async with storage.without_waiting():
            yield configured()
    finally:
        await Model.close()


def _printer(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, markup=False, soft_wrap=True)


async def upgrade(settings: Settings, console: Console, to: str) -> int:
    """Run the migrations that the database lacks, up to ``to``. Return the exit code."""
    ours = storage.history()
    async with _opened(settings) as database:
        await storage.own_tables()
        if not ours.revisions():
            console.print(
                "there are no migrations yet; `run` creates the tables that are missing", markup=False, soft_wrap=True
            )
            return 0
        before = await migrate.at(database, ours)
        await migrate.upgrade(database, ours, Base.metadata, _printer(console), to)
        if await migrate.at(database, ours) == before:
            console.print(f"nothing to do: the database is at {before[0] if before else 'no revision'}", markup=False)
    return 0


async def downgrade(settings: Settings, console: Console, to: str) -> int:
    """Take migrations back until ``to`` is the latest. Return the exit code."""
    async with _opened(settings) as database:
        await migrate.downgrade(database, storage.history(), to, _printer(console))
    return 0


async def revision(settings: Settings, console: Console, message: str, *, empty: bool) -> int:
    """Write a new migration for what the models have and the migrations do not make. Return the exit code."""
    async with _opened(settings) as database:
        file = await make_revision(database, storage.history(), Base.metadata, message, empty=empty)
    ruff = Path(sys.executable).with_name("ruff")
    if ruff.exists():
        # The project's own check must not complain about what was written here.
        subprocess.run([ruff, "format", "--quiet", file], check=False)  # noqa: ASYNC221, S603 - nothing else runs on this loop
    with suppress(ValueError):
        file = file.relative_to(Path.cwd())
    console.print(f"wrote {file}: read it, then run python main.py db upgrade", markup=False, soft_wrap=True)
    return 0


async def current(settings: Settings, console: Console) -> int:
    """Print where the database is in both histories. Return the exit code."""
    async with _opened(settings) as database:
        for history in (storage.history(), OWN):
            at = await migrate.at(database, history)
            lacking = [each.revision for each in history.pending(at)]
            said = ", ".join(at) or ("no revision" if history.revisions() else "no migrations yet")
            if lacking:
                said += f", lacks {migrate.few(lacking)}"
            elif at:
                said += ", the latest"
            console.print(f"{history.name:13}{said}", markup=False, soft_wrap=True)
    return 0


async def history(settings: Settings, console: Console) -> int:
    """Print all revisions of both histories, the oldest first. Return the exit code."""
    async with _opened(settings) as database:
        for each in (storage.history(), OWN):
            lacking = {one.revision for one in await migrate.pending(database, each)}
            console.print(each.name, style="bold", markup=False)
            for one in each.revisions():
                state = "pending" if one.revision in lacking else "done"
                console.print(f"  {state:9}{one.revision:34}{one.doc}", markup=False, soft_wrap=True)
            if not each.revisions():
                console.print("  no migrations yet", markup=False)
    return 0


async def check(settings: Settings, console: Console) -> int:
    """Print how the models and the migrations differ. Return the exit code, which is 1 if they do."""
    ours = storage.history()
    async with _opened(settings) as database, migrate.at_head(database, ours) as connection:
        found = await connection.run_sync(differences, Base.metadata, ours.table)
    for line in found:
        console.print(line, markup=False, soft_wrap=True)
    if found:
        console.print('run python main.py db revision -m "..." to make a migration of it', markup=False, soft_wrap=True)
        return 1
    console.print("the models are what the migrations make", markup=False)
    return 0
