"""How connections to a database are made."""

from __future__ import annotations

import socket
from math import ceil
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from core.database.fault import Fault, fault_of
from core.errors import DatabaseUnreachableError, SettingsError, one_line

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Dialect, ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncEngine

    from core.database.pool import PoolOptions

SQLITE_BUSY_TIMEOUT = 10.0
"""Seconds that a statement waits for another connection's transaction on the same SQLite file."""
CONNECT_TIMEOUT = 10.0
"""Seconds that making a connection may take."""
MARGIN = 1.25
"""The driver gives a statement up after so many times its limit. By then the server has cancelled it, if it is there."""
KEEPALIVE_IDLE, KEEPALIVE_EVERY, KEEPALIVE_TIMES = 15, 5, 3
"""After so many seconds of silence the system asks whether the server is there, so often, and so many times."""
READ_ONLY = "25006"
"""The SQLSTATE of a statement that writes, on a standby."""
ASYNCPG = "postgresql+asyncpg"
TRANSACTION = "transaction"
"""The kind of pooler that may give each transaction another connection to the server."""

_LIMIT = (
    "SELECT set_config(name, '{0}', false) FROM pg_settings "
    "WHERE name = 'statement_timeout' AND setting::bigint NOT BETWEEN 1 AND {0}"
)
"""Gives statements of a connection a limit in milliseconds, unless the server has a shorter one for them."""


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
    arguments: dict[str, Any] = {"server_settings": {"application_name": "routemq"}, "timeout": CONNECT_TIMEOUT}
    if options.statement_timeout is not None:
        arguments["command_timeout"] = options.statement_timeout * MARGIN
    if options.pooler:
        # A statement with a name is known to one server connection only, and the next transaction may have another.
        arguments |= {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": _no_name,
        }
    # What the URL says goes first.
    return {name: value for name, value in arguments.items() if name not in url.query}


def _no_name() -> str:
    return ""


def listen(engine: AsyncEngine, options: PoolOptions) -> None:
    """Have the connections of ``engine`` made and thrown away as ``options`` say.

    Whatever keeps a connection from being made is raised as DatabaseUnreachableError, unless its fault is known, and so is a
    connection that hangs or breaks: the driver raises an OSError then, which a handler's own code may raise too.
    """

    @event.listens_for(engine.sync_engine, "do_connect")
    def connect(dialect: Dialect, record: object, arguments: list[Any], named: dict[str, Any]) -> object:
        return connected(dialect, arguments, named, options)

    event.listen(engine.sync_engine, "handle_error", _throw_away)


def connected(dialect: Dialect, arguments: list[Any], named: dict[str, Any], options: PoolOptions) -> object:
    """Return a new connection to the database. Raise DatabaseUnreachableError if none can be made."""
    made: Any = None
    try:
        made = dialect.connect(*arguments, **named)
        if isinstance(dialect, PGDialect_asyncpg):
            _watch(made.driver_connection, options)
            if options.statement_timeout is not None and not options.pooler:
                # Not as a parameter of the start, which poolers refuse that keep a connection for each client.
                limit = _LIMIT.format(ceil(options.statement_timeout * 1000))
                made.run_async(lambda driver: driver.execute(limit))
    except BaseException as error:
        if made is not None:
            # The pool does not have the connection yet, and would not close it.
            made.driver_connection.terminate()
        # What keeps a connection from being made is never a message's: no primary yet, a pooler that is full, a broken line.
        if not isinstance(error, Exception) or fault_of(error) is not Fault.MESSAGE:
            raise
        raise DatabaseUnreachableError(f"the database cannot be reached: {one_line(error)}") from error
    return made


def _watch(driver: Any, options: PoolOptions) -> None:
    """Have the operating system notice that nobody answers on the socket of ``driver``, as far as it can."""
    transport = getattr(driver, "_transport", None)
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is None or connection.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    limit = ceil(options.statement_timeout or KEEPALIVE_IDLE)
    for name, value in {
        "TCP_KEEPIDLE": KEEPALIVE_IDLE,
        "TCP_KEEPALIVE": KEEPALIVE_IDLE,  # its name on macOS
        "TCP_KEEPINTVL": KEEPALIVE_EVERY,
        "TCP_KEEPCNT": KEEPALIVE_TIMES,
        "TCP_USER_TIMEOUT": limit * 1000,
    }.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _throw_away(context: ExceptionContext) -> None:
    """Have the pool throw its connections away where the server has become a standby, or does not answer any more.

    Others lead to the primary, or to a server that answers.
    """
    error = context.original_exception
    if getattr(error, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True
    elif isinstance(error, OSError) and context.dialect.name != "sqlite":
        context.is_disconnect = True
        raise DatabaseUnreachableError(f"the database does not answer: {one_line(error)}") from error
