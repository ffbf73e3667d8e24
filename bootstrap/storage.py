"""Where an application keeps things: in its database, or in files if it has none."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import MetaData

from bootstrap.discovery import import_models, project_folder
from core.database import current
from core.database.current import configured
from core.database.driver.pooler import changes_connections
from core.database.engine import Database
from core.database.fault import Fault, fault_of
from core.database.migrations import migrate
from core.database.migrations.history import application_history
from core.delivery.backlog import Store
from core.errors import MigrationError, StartError, one_line
from core.model import Base, Model
from core.records.dead_letter_file import DeadLetterFile
from core.records.dead_letter_table import DeadLetterTable
from core.records.session_hold import SessionFile, SessionTable
from core.records.tables import OWN
from core.records.tables import backlog as backlog_table
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
    """Configure ``Model`` without connecting, and import the application's models.

    Raise StartError if a model cannot be imported.
    """
    current.configure(Database(settings.database_url, settings.pool()) if settings.database_url else None)
    if Model._is_enabled:
        import_models()


def history() -> History:
    """Return the application's history of migrations."""
    return application_history(project_folder())


async def prepare(*, upgrades: bool) -> None:
    """Bring the tables to the state that the application and the framework need.

    If the project has no migrations, create the tables that are missing. If it has some, the database must be at the latest
    one. With ``upgrades``, run those that the database lacks. Raise MigrationError if tables or migrations are missing then,
    and say which command makes them.
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
            f"the database {database} lacks the migration{'s' * (len(lacking) > 1)} "
            f"{migrate.few([each.revision for each in lacking])}: "
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
    """Bring the framework's own tables to the state that it needs.

    Raise MigrationError if that fails, and StartError for a pooler that no setting names.
    """
    if not Model._is_enabled:
        return
    await check_pooler()
    if await migrate.pending(configured(), OWN):
        await migrate.upgrade(configured(), OWN, MetaData(), log.debug)


async def check_pooler() -> None:
    """Raise StartError if a pooler changes the connections to the server, and the settings do not say so."""
    database = configured()
    if database.options.pooler or not await changes_connections(database.url, database.options):
        return
    raise StartError(
        f"a pooler before the database {database} gives each transaction any of its connections to the server, as PgBouncer "
        "does with pool_mode=transaction. Set DB_POOLER=transaction. Without it, statements would be mixed up"
    )


def dead_letter_file(settings: Settings) -> DeadLetterFile:
    """Return the file for dead letters."""
    return DeadLetterFile(FOLDER / "dead_letters.jsonl", settings.dead_letter_max, settings.dead_letter_max_bytes)


def dead_letters(settings: Settings) -> DeadLetterStore:
    """Return the place for dead letters: the table, or the file if there is no database."""
    if Model._is_enabled:
        return DeadLetterTable(configured().begin, settings.dead_letter_max, settings.dead_letter_max_bytes)
    return dead_letter_file(settings)


def backlog(settings: Settings, client_id: str | None) -> Store:
    """Return the place for messages that wait for their routes: those of the worker ``client_id``, or of all workers."""
    most, size = settings.dead_letter_max, settings.dead_letter_max_bytes
    if not Model._is_enabled:
        return Store(file=DeadLetterFile(FOLDER / "backlog.jsonl", most, size))
    return Store(DeadLetterTable(configured().begin, most, size, table=backlog_table, client_id=client_id))


def sessions() -> SessionStore:
    """Return the place that remembers sessions: the table, or a file if there is no database."""
    return SessionTable(configured().begin) if Model._is_enabled else SessionFile(FOLDER / "sessions.json")


async def when_database_answers(call: Callable[[], Awaitable[T]]) -> T:
    """Return what ``call`` returns. While the database does not answer, wait and call again.

    Raise StartError for an error that does not pass by waiting. Raise MigrationError and StartError as they are.
    """
    pauses = Pauses(FIRST_PAUSE, MAX_PAUSE)
    waiting = False
    while True:
        try:
            result = await call()
        except (MigrationError, StartError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is told, or waited out
            if not _may_pass(error):
                raise unusable(error) from None
            if not waiting:
                waiting = True
                log.error("waiting for the database %s: %s", configured(), driver_message(error))  # noqa: TRY400
            await asyncio.sleep(pauses.next())
        else:
            if waiting:
                log.warning("the database %s answers now", configured())
            return result


@asynccontextmanager
async def without_waiting() -> AsyncIterator[None]:
    """Raise whatever the block raises as a StartError, because a command does not wait for the database.

    A MigrationError and a StartError are raised as they are.
    """
    try:
        yield
    except (MigrationError, StartError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a driver raises is told
        raise unusable(error) from None


def _may_pass(error: Exception) -> bool:
    """Return whether ``error`` may pass by waiting."""
    return Model._is_enabled and fault_of(error) in {Fault.INFRASTRUCTURE, Fault.AGAIN}


def unusable(error: Exception) -> StartError:
    """Return the error that says that the database, or the folder in its place, cannot be used."""
    what = f"the database {configured()}" if Model._is_enabled else f"the folder {FOLDER}/"
    return StartError(f"{what} cannot be used: {driver_message(error)}")


def driver_message(error: BaseException) -> str:
    """Return what the database driver said, in one line. SQLAlchemy's own message adds the statement and a link."""
    return one_line(getattr(error, "orig", None) or error)
