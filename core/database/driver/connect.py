"""How connections to a database are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.database.fault import Fault, fault_of
from core.errors import DatabaseUnreachableError, SettingsError, one_line

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Dialect

    from core.database.pool import PoolOptions

SQLITE_BUSY_TIMEOUT = 10.0
"""Seconds that a statement waits for another connection's transaction on the same SQLite file."""
ASYNCPG = "postgresql+asyncpg"
TRANSACTION = "transaction"
"""The kind of pooler that may give each transaction another connection to the server."""


def connect_arguments(url: URL, options: PoolOptions) -> dict[str, Any]:
    """Return what the driver of ``url`` is given for each connection, beside the URL.

    Raise SettingsError for an option that the driver does not know.
    """
    if options.pooler not in {"", TRANSACTION}:
        raise SettingsError(f"DB_POOLER={options.pooler} is not known. Write transaction, or leave it empty")
    if options.pooler and url.drivername != ASYNCPG:
        raise SettingsError(f"DB_POOLER={options.pooler} is for {ASYNCPG}, and DATABASE_URL begins with {url.drivername}")
    if url.get_backend_name() == "sqlite":
        return {"timeout": SQLITE_BUSY_TIMEOUT}
    if url.drivername != ASYNCPG:
        return {}
    arguments: dict[str, Any] = {"server_settings": {"application_name": "routemq"}}
    if options.pooler:
        # A statement with a name is known to one server connection only, and the next transaction may have another.
        arguments |= {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": _no_name,
        }
    return arguments


def _no_name() -> str:
    return ""


def connect(dialect: Dialect, record: object, arguments: list[Any], options: dict[str, Any]) -> object:
    """Connect to the database. Raise DatabaseUnreachableError for an OSError, which a handler's own code may raise too."""
    try:
        return dialect.connect(*arguments, **options)
    except Exception as error:
        # What keeps a connection from being made is never a message's: no primary yet, a pooler that is full, a broken line.
        if fault_of(error) is not Fault.MESSAGE:
            raise
        raise DatabaseUnreachableError(f"the database cannot be reached: {one_line(error)}") from error
