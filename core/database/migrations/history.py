"""A history of migrations: a folder of revisions, and the table that says how far a database is."""

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
_LONGEST_ID = 32
"""Alembic's table has room for no more."""


@dataclass(frozen=True)
class History:
    """The revisions in the folder ``versions``; ``table`` holds the one that a database is at."""

    name: str
    versions: Path
    table: str

    def config(self, work: Callable[[EnvironmentContext], None] | None = None) -> Config:
        """Give the configuration for Alembic's commands; ``work`` is what its environment does."""
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
        """Give all revisions, the first one first. Raises MigrationError where they are no single line."""
        return self.pending(())

    def pending(self, at: Sequence[str]) -> list[Script]:
        """Give the revisions that a database at ``at`` lacks, in the order in which they run.

        Raises MigrationError where the revisions are no single line, or do not have the one that the database is at.
        """
        with self.told("cannot be loaded"):
            script = ScriptDirectory.from_config(self.config())
            heads = sorted(script.get_heads())
            if len(heads) > 1:
                raise MigrationError(
                    f"the migrations in {self.versions} have {len(heads)} ends, {' and '.join(heads)}: write in the later "
                    "one the other as its down_revision"
                )
            known = {each.revision for each in script.walk_revisions()}
            strange = [revision for revision in at if revision not in known]
            if strange:
                raise MigrationError(
                    f"the database is at the revision {strange[0]}, which is not in {self.versions}: other code, likely "
                    "newer, has been here; run that, or have it take the revision back"
                )
            return list(script.iterate_revisions("heads", tuple(at) or "base"))[::-1]

    def next_id(self, message: str) -> str:
        """Give the identifier, which is also the file's name, for a new revision: 0002_add_location."""
        numbers = [int(found[0]) for each in self.revisions() if (found := re.match(r"\d+", each.revision))]
        words = re.sub(r"[^a-z0-9]+", "_", message.lower()).strip("_")
        return f"{max(numbers, default=0) + 1:04d}_{words}"[:_LONGEST_ID].rstrip("_")

    @contextmanager
    def told(self, what: str = "failed and was rolled back") -> Iterator[None]:
        """Raise what goes wrong with a migration as a MigrationError in one line; outages pass as they are."""
        try:
            yield
        except MigrationError:
            raise
        except CommandError as error:
            raise MigrationError(one_line(error, name=False)) from error
        except Exception as error:
            if fault_of(error) is not Fault.MESSAGE:
                raise
            said = one_line(getattr(error, "orig", None) or error)
            raise MigrationError(f"{self._place(error)} {what}: {said}") from error

    def _place(self, error: Exception) -> str:
        folder = self.versions.resolve()
        for frame in reversed(extract_tb(error.__traceback__)):
            if Path(frame.filename).resolve().parent == folder:
                return f"the migration {Path(frame.filename).name}, line {frame.lineno},"
        at = getattr(error, "filename", None)
        if isinstance(error, SyntaxError) and at:
            return f"the migration {Path(at).name}, line {error.lineno},"
        return f"a migration of {self.versions}"


async def in_turn(connection: AsyncConnection, run: Callable[..., T], *given: Any) -> T:
    """Give what ``run``, which calls Alembic, gives. What Alembic is at stands in its modules: there is one at a time."""
    turn = _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    async with turn:
        return await connection.run_sync(run, *given)


def application_history(project: Path) -> History:
    """Give the history of the application in the folder ``project``."""
    return History("application", project / "migrations" / "versions", "alembic_version")
