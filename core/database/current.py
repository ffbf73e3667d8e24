"""The configured database of the running application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.errors import DatabaseDisabledError
from core.runtime import Part, current

if TYPE_CHECKING:
    from core.database.engine import Database


class _InUse:
    """The database that an application uses.

    - ``database``: the configured database. None disables the database.
    - ``retired``: the databases that were configured before it. Their connections are still to be closed.
    - ``warned``: the calls for which a warning says that the database is disabled.
    """

    def __init__(self) -> None:
        self.database: Database | None = None
        self.retired: list[Database] = []
        self.warned: set[str] = set()


DATABASE = Part(_InUse)
"""The database of an application."""


def configure(database: Database | None) -> None:
    """Use ``database`` from now on. None disables the database."""
    in_use = current()[DATABASE]
    if in_use.database is not None:
        in_use.retired.append(in_use.database)
    in_use.database = database
    in_use.warned.clear()


async def close() -> None:
    """Close the connections of all databases that were configured, and disable the database."""
    configure(None)
    in_use = current()[DATABASE]
    while in_use.retired:
        await in_use.retired.pop().close()


def configured() -> Database:
    """Return the configured database. Raise DatabaseDisabledError if there is none."""
    found = current()[DATABASE].database
    if found is None:
        raise DatabaseDisabledError("no database is configured. Set DATABASE_URL, or call Model.configure(url)")
    return found


def configured_or_none() -> Database | None:
    """Return the configured database. Return None while the database is disabled."""
    return current()[DATABASE].database


def is_first_without_database(call: str) -> bool:
    """Return whether ``call`` meets a disabled database for the first time since the database was configured."""
    warned = current()[DATABASE].warned
    first = call not in warned
    warned.add(call)
    return first
