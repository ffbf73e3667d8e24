"""A history of migrations: a folder of revisions, and the table that holds the revision of a database."""

from __future__ import annotations

import asyncio
import re
from argparse import Namespace
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from core.database.fault import Fault, fault_of
from core.errors import MigrationError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import Script
    from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
_FOLDER = Path(__file__).parent / "alembic"
_MAX_ID = 32
"""Characters of a revision's identifier, for which Alembic's table has a column."""


@dataclass(frozen=True)
class History:
    """A history of revisions.

    - ``name``: what commands call the history.
    - ``versions``: the folder of the revisions.
    - ``table``: the name of the table that holds the revision of a database.
    """

    name: str
    versions: Path
    table: str

    def config(self, work: Callable[[EnvironmentContext], None] | None = None) -> Config:
        """Return the configuration for Alembic's commands. ``work`` is what Alembic's environment does in them."""
        config = Config(cmd_opts=Namespace(quiet=True))
        for option, value in (
            ("script_location", _FOLDER),
            ("version_locations", self.versions),
            ("path_separator", "newline"),
            ("file_template", "%(rev)s"),
        ):
            config.set_main_option(option, str(value).replace("%", "%%"))
        config.attributes["routemq_work"] = work
        return config

    def revisions(self) -> list[Script]:
        """Return all revisions, the first one first. Raise MigrationError if they do not follow one after the other."""
        return self.pending(())

    def pending(self, at: Sequence[str]) -> list[Script]:
        """Return the revisions that a database at the revisions ``at`` lacks, in the order in which they run.

        Raise MigrationError if the revisions do not follow one after the other, or if one of ``at`` is not among them.
        """
        with self.migration_errors("cannot be loaded"):
            script = ScriptDirectory.from_config(self.config())
            heads = sorted(script.get_heads())
            if len(heads) > 1:
                raise MigrationError(
                    f"the migrations in {self.versions} have {len(heads)} ends, {' and '.join(heads)}. Set down_revision in "
                    "the later one to the other"
                )
            known = {each.revision for each in script.walk_revisions()}
            unknown = [revision for revision in at if revision not in known]
            if unknown:
                raise MigrationError(
                    f"the database is at the revision {unknown[0]}, which is not in {self.versions}. Other code, likely "
                    "newer, has upgraded it. Run that code, or take the revision back with it"
                )
            return list(script.iterate_revisions("heads", tuple(at) or "base"))[::-1]

    def next_id(self, message: str) -> str:
        """Return the identifier of a new revision, such as 0002_add_location. It is also the name of its file."""
        numbers = [int(found[0]) for each in self.revisions() if (found := re.match(r"\d+", each.revision))]
        words = re.sub(r"[^a-z0-9]+", "_", message.lower()).strip("_")
        return f"{max(numbers, default=0) + 1:04d}_{words}"[:_MAX_ID].rstrip("_")

    @contextmanager
    def migration_errors(self, what: str = "failed and was rolled back") -> Iterator[None]:
        """Raise MigrationError in one line for an error in a migration: the migration, ``what``, and the error.

        An error that is not the migration's own fault, such as an outage, is raised as it is.
        """
        try:
            yield
        except MigrationError:
            raise
        except CommandError as error:
            raise MigrationError(one_line(error, name=False)) from error
        except Exception as error:
            if fault_of(error) not in {Fault.MESSAGE, Fault.SCHEMA}:
                raise
            reason = one_line(getattr(error, "orig", None) or error)
            raise MigrationError(f"{self._place(error)} {what}: {reason}") from error

    def _place(self, error: Exception) -> str:
        """Return the file and the line of the migration in which ``error`` was raised, as the beginning of a sentence."""
        folder = self.versions.resolve()
        for frame in reversed(extract_tb(error.__traceback__)):
            if Path(frame.filename).resolve().parent == folder:
                return f"the migration {Path(frame.filename).name}, line {frame.lineno},"
        at = getattr(error, "filename", None)
        if isinstance(error, SyntaxError) and at:
            return f"the migration {Path(at).name}, line {error.lineno},"
        return f"a migration of {self.versions}"


async def in_turn(connection: AsyncConnection, run: Callable[..., T], *arguments: Any) -> T:
    """Return what ``run``, which calls Alembic, returns for ``connection`` and ``arguments``.

    Alembic keeps the state of a run in its modules. Therefore only one run goes on at a time.
    """
    turn = _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    async with turn:
        return await connection.run_sync(run, *arguments)


def application_history(project: Path) -> History:
    """Return the history of the application in the folder ``project``."""
    return History("application", project / "migrations" / "versions", "alembic_version")
