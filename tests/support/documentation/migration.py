"""Run a migration of a page with the commands of the application, on a real database."""

from __future__ import annotations

import shutil
from textwrap import indent
from typing import TYPE_CHECKING, cast

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_mock_engine

from tests.support.documentation.blocks import ROOT
from tests.support.postgres import postgres
from tests.support.worker import Project

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection


async def run_migration(application: Path, code: str, database: str) -> None:
    """Write ``code`` as the next migration, after those of this repository and of earlier calls, and run all of them.

    ``code`` has ``upgrade()`` and ``downgrade()``, or is the body of the former. What can be taken back is, and runs once
    more. All that happens in a copy of ``application``, whose own tables need no migration.
    """
    project = Project(application / "migrated")
    folder = project.folder / "migrations"
    if not folder.exists():
        shutil.copytree(ROOT / "migrations", folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(application / "app", project.folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    url = postgres().new_database() if database == "postgresql" else f"sqlite+aiosqlite:///{project.folder}/migrated.db"
    project.set(DATABASE_URL=url)
    name = f"migration {len(list(folder.rglob('*.py')))}"
    said = await _command(project, "db", "revision", "--empty", "-m", name)
    file = project.folder / said.partition("wrote ")[2].partition(":")[0]
    if "def upgrade" not in code:
        code = f"def upgrade() -> None:\n{indent(code, '    ')}"
    file.write_text(file.read_text().partition("def upgrade")[0] + code)
    await _command(project, "db", "upgrade")
    if "def downgrade" in code:
        await _command(project, "db", "downgrade", "-1")
        await _command(project, "db", "upgrade")


async def _command(project: Project, *arguments: str) -> str:
    code, output = await project.command(*arguments)
    assert code == 0, f"main.py {' '.join(arguments)}: {output}"
    return output


def statements(step: Callable[[], None], database: str) -> list[str]:
    """Return the statements that a step of a migration makes on a kind of database, without sending them."""
    made: list[str] = []
    engine = create_mock_engine(f"{database}://", lambda statement, *_, **__: made.append(str(statement)))
    with Operations.context(MigrationContext.configure(cast("Connection", engine.connect()))):
        step()
    return made
