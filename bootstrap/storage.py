"""Where an application keeps things: in its database, or in files where it has none."""

from __future__ import annotations

import asyncio
import importlib
import logging
import pkgutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from core.database import ambient
from core.database.fault import Fault, fault_of
from core.delivery.dead_letter_file import DeadLetterFile
from core.delivery.dead_letters import DeadLetterTable
from core.delivery.session_record import SessionFile, SessionTable
from core.delivery.tables import metadata
from core.errors import StartError, one_line
from core.model import Base, Model

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from config.settings import Settings
    from core.delivery.dead_letters import DeadLetterStore
    from core.delivery.session_record import SessionStore

T = TypeVar("T")

log = logging.getLogger("routemq")

FOLDER = Path("storage")
FIRST_PAUSE = 0.5
MOST_PAUSE = 10.0


def configure(settings: Settings) -> None:
    """Configure ``Model``, without connecting, and import the application's models. Raises StartError."""
    Model.configure(
        settings.database_url,
        pool_size=settings.db_pool_size,
        max_overflow=settings.db_max_overflow,
        pool_timeout=settings.db_pool_timeout,
        pool_recycle=settings.db_pool_recycle,
    )
    if Model._is_enabled:
        import_models()


async def create_tables() -> None:
    """Create the tables that are missing, of the application and of the framework."""
    if Model._is_enabled:
        await ambient.database().create_tables(Base.metadata, metadata)


def dead_letter_file(settings: Settings) -> DeadLetterFile:
    """Give the file for dead letters."""
    return DeadLetterFile(FOLDER / "dead_letters.jsonl", settings.dead_letter_max)


def dead_letters(settings: Settings) -> DeadLetterStore:
    """Give where dead letters go: the table, or the file where there is no database."""
    if Model._is_enabled:
        return DeadLetterTable(ambient.database().begin, settings.dead_letter_max)
    return dead_letter_file(settings)


def sessions() -> SessionStore:
    """Give where the session is remembered."""
    return SessionTable(ambient.database().begin) if Model._is_enabled else SessionFile(FOLDER / "sessions.json")


def import_models(package: str = "app.models") -> None:
    """Import all modules of ``package``, so that their tables are known. Raises StartError."""
    found = importlib.import_module(package)
    for module in pkgutil.iter_modules(found.__path__):
        try:
            importlib.import_module(f"{package}.{module.name}")
        except Exception as error:
            raise StartError(
                f"the model module {package}.{module.name} cannot be imported: {type(error).__name__}: {error}"
            ) from error


async def once_it_answers(call: Callable[[], Awaitable[T]]) -> T:
    """Give what ``call`` gives, waiting for the database while it does not answer. Raises StartError if waiting is vain."""
    pause = FIRST_PAUSE
    waiting = False
    while True:
        try:
            given = await call()
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is told, or waited out
            if not waits(error):
                raise cannot_be_used(error) from None
            if not waiting:
                waiting = True
                log.error("waiting for the database %s: %s", ambient.database(), first_line(error))  # noqa: TRY400
            await asyncio.sleep(pause)
            pause = min(pause * 2, MOST_PAUSE)
        else:
            if waiting:
                log.warning("the database %s answers now", ambient.database())
            return given


def waits(error: Exception) -> bool:
    """Say whether ``error`` may pass by itself."""
    return Model._is_enabled and fault_of(error) in {Fault.INFRASTRUCTURE, Fault.AGAIN}


def cannot_be_used(error: Exception) -> StartError:
    """Give the error that says so to a person."""
    what = f"the database {ambient.database()}" if Model._is_enabled else f"the folder {FOLDER}/"
    return StartError(f"{what} cannot be used: {first_line(error)}")


def now() -> datetime:
    """Give the time, aware, in UTC."""
    return datetime.now(UTC)


def first_line(error: BaseException) -> str:
    """Give what the driver said: SQLAlchemy's message goes on with the statement and a link."""
    return one_line(getattr(error, "orig", None) or error)
