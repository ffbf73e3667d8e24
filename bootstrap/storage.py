"""Where an application keeps things: in its database, or in files where it has none."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import MetaData

from bootstrap.discovery import import_models, project_folder
from core.database import current
from core.database.current import configured
from core.database.engine import Database
from core.database.fault import Fault, fault_of
from core.database.migrations import migrate
from core.database.migrations.history import application_history
from core.errors import MigrationError, StartError, one_line
from core.model import Base, Model
from core.records.dead_letter_file import DeadLetterFile
from core.records.dead_letter_table import DeadLetterTable
from core.records.session_hold import SessionFile, SessionTable
from core.records.tables import OWN
from core.retry import Pauses

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from config.settings import Settings
    from core.database.migrations.history import History
    from core.records.dead_letters import DeadLetterStore
    from core.records.session_hold import SessionStore

T = TypeVar("T")

log = logging.getLogger("routemq")

FOLDER = Path("storage")
FIRST_PAUSE = 0.5
MAX_PAUSE = 10.0


def configure(settings: Settings) -> None:
    """Configure ``Model``, without connecting, and import the application's models. Raises StartError."""
    current.configure(Database(settings.database_url, settings.pool()) if settings.database_url else None)
    if Model._is_enabled:
        import_models()


def history() -> History:
    """Give the application's history of migrations."""
    return application_history(project_folder())


async def prepare(*, upgrades: bool) -> None:
    """Bring the tables to where the application and the framework need them, or say what does.

    Without a migration in the project, the tables that are missing are created. Else the database must be at the latest
    one; where it ``upgrades`` it is brought there. Raises MigrationError.
    """
    if not Model._is_enabled:
        return
    await own_tables()
    database, ours = configured(), history()
    if not ours.revisions():
        await database.create_tables(Base.metadata)
        return
    lacking = await migrate.pending(database, ours)
    if lacking and not upgrades:
        raise MigrationError(
            f"the database {database} lacks {migrate.few([each.revision for each in lacking])}: "
            "run python main.py db upgrade, or set DB_AUTO_MIGRATE=true"
        )
    if lacking:
        await migrate.upgrade(database, ours, Base.metadata, log.info)
    missing = await migrate.missing_tables(database, Base.metadata)
    if missing:
        raise MigrationError(
            f"the database {database} has no table {migrate.few(missing)}, and no migration makes it: "
            'run python main.py db revision -m "..." and python main.py db upgrade'
        )


async def own_tables() -> None:
    """Bring the framework's own tables to where it needs them. Raises MigrationError."""
    if Model._is_enabled and await migrate.pending(configured(), OWN):
        await migrate.upgrade(configured(), OWN, MetaData(), log.debug)


def dead_letter_file(settings: Settings) -> DeadLetterFile:
    """Give the file for dead letters."""
    return DeadLetterFile(FOLDER / "dead_letters.jsonl", settings.dead_letter_max)


def dead_letters(settings: Settings) -> DeadLetterStore:
    """Give where dead letters go: the table, or the file where there is no database."""
    if Model._is_enabled:
        return DeadLetterTable(configured().begin, settings.dead_letter_max)
    return dead_letter_file(settings)


def sessions() -> SessionStore:
    """Give where the session is remembered."""
    return SessionTable(configured().begin) if Model._is_enabled else SessionFile(FOLDER / "sessions.json")


async def once_it_answers(call: Callable[[], Awaitable[T]]) -> T:
    """Give what ``call`` gives, waiting for the database while it does not answer. Raises StartError if waiting is vain."""
    pauses = Pauses(FIRST_PAUSE, MAX_PAUSE)
    waiting = False
    while True:
        try:
            given = await call()
        except MigrationError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is told, or waited out
            if not waits(error):
                raise cannot_be_used(error) from None
            if not waiting:
                waiting = True
                log.error("waiting for the database %s: %s", configured(), first_line(error))  # noqa: TRY400
            await asyncio.sleep(pauses.next())
        else:
            if waiting:
                log.warning("the database %s answers now", configured())
            return given


@asynccontextmanager
async def at_once() -> AsyncIterator[None]:
    """Have what the block raises told as a StartError: a command does not wait for the database. Ours stay as they are."""
    try:
        yield
    except MigrationError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a driver raises is told
        raise cannot_be_used(error) from None


def waits(error: Exception) -> bool:
    """Say whether ``error`` may pass by itself."""
    return Model._is_enabled and fault_of(error) in {Fault.INFRASTRUCTURE, Fault.AGAIN}


def cannot_be_used(error: Exception) -> StartError:
    """Give the error that says so to a person."""
    what = f"the database {configured()}" if Model._is_enabled else f"the folder {FOLDER}/"
    return StartError(f"{what} cannot be used: {first_line(error)}")


def now() -> datetime:
    """Give the time, aware, in UTC."""
    return datetime.now(UTC)


def first_line(error: BaseException) -> str:
    """Give what the driver said: SQLAlchemy's message goes on with the statement and a link."""
    return one_line(getattr(error, "orig", None) or error)
