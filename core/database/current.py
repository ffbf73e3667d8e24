"""The database in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.errors import DatabaseDisabledError
from core.runtime import Part, current

if TYPE_CHECKING:
    from core.database.engine import Database


class _InUse:
    """The configured database, and those configured before it, whose connections are still to be closed."""

    def __init__(self) -> None:
        self.database: Database | None = None
        self.retired: list[Database] = []
        self.told: set[str] = set()


DATABASE = Part(_InUse)
"""The database of an application."""


def configure(database: Database | None) -> None:
    """Use ``database`` from now on. None disables the database."""
    in_use = current()[DATABASE]
    if in_use.database is not None:
        in_use.retired.append(in_use.database)
    in_use.database = database
    in_use.told.clear()


async def close() -> None:
    """Close all connections, and disable the database."""
    configure(None)
    in_use = current()[DATABASE]
    while in_use.retired:
        await in_use.retired.pop().close()


def configured() -> Database:
    """Return the configured database. Raise DatabaseDisabledError where there is none."""
    found = current()[DATABASE].database
    if found is None:
        raise DatabaseDisabledError("no database is configured; set DATABASE_URL, or call Model.configure(url)")
    return found


def configured_or_none() -> Database | None:
    """Return the configured database; None while it is disabled."""
    return current()[DATABASE].database


def tell_once(call: str) -> bool:
    """Return whether ``call`` is the first of its kind that met a disabled database."""
    told = current()[DATABASE].told
    first = call not in told
    told.add(call)
    return first
