"""Tells what kind of failure an exception is: the infrastructure's, or the message's own."""

from __future__ import annotations

import sqlite3
from enum import Enum

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from core.errors import BrokerUnreachableError, CounterUnreachableError, DatabaseUnreachableError


class Fault(Enum):
    """Whose fault a failure is, which says what helps.

    ``MESSAGE``: the message's or the handler's own; running it again helps at most a few times. ``AGAIN``: a transaction
    lost against another one; running it again at once helps. ``INFRASTRUCTURE``: the database is away, full or
    overloaded, or the broker or Redis is away; waiting helps. ``SETUP``: wrong password, unknown database; a person helps.
    """

    MESSAGE = "message"
    AGAIN = "again"
    INFRASTRUCTURE = "infrastructure"
    SETUP = "setup"


# PostgreSQL's error codes, appendix A of its documentation; two characters stand for a whole class.
_SQLSTATES = {
    "08": Fault.INFRASTRUCTURE,  # connection exceptions
    "53": Fault.INFRASTRUCTURE,  # insufficient resources: disk full, too many connections
    "57P01": Fault.INFRASTRUCTURE,  # admin_shutdown
    "57P02": Fault.INFRASTRUCTURE,  # crash_shutdown
    "57P03": Fault.INFRASTRUCTURE,  # cannot_connect_now
    "57P05": Fault.INFRASTRUCTURE,  # idle_session_timeout
    "58": Fault.INFRASTRUCTURE,  # system errors: input and output
    "25006": Fault.INFRASTRUCTURE,  # read_only_sql_transaction: a standby, until the fail-over is through
    "57014": Fault.INFRASTRUCTURE,  # query_canceled: statement_timeout, mostly behind a lock
    "55P03": Fault.INFRASTRUCTURE,  # lock_not_available: somebody holds the table, a migration for instance
    "25P03": Fault.INFRASTRUCTURE,  # idle_in_transaction_session_timeout
    "26000": Fault.INFRASTRUCTURE,  # invalid_sql_statement_name: a pooler gave the connection to another server session
    "42P05": Fault.INFRASTRUCTURE,  # duplicate_prepared_statement: likewise
    "40001": Fault.AGAIN,  # serialization_failure
    "40P01": Fault.AGAIN,  # deadlock_detected
    "28": Fault.SETUP,  # invalid authorization
    "3D000": Fault.SETUP,  # invalid_catalog_name: no such database
}
# SQLite's primary result codes, https://www.sqlite.org/rescode.html.
_SQLITE = {
    sqlite3.SQLITE_BUSY: Fault.INFRASTRUCTURE,
    sqlite3.SQLITE_LOCKED: Fault.AGAIN,
    sqlite3.SQLITE_NOMEM: Fault.INFRASTRUCTURE,
    sqlite3.SQLITE_READONLY: Fault.INFRASTRUCTURE,
    sqlite3.SQLITE_IOERR: Fault.INFRASTRUCTURE,
    sqlite3.SQLITE_CORRUPT: Fault.INFRASTRUCTURE,
    sqlite3.SQLITE_FULL: Fault.INFRASTRUCTURE,
    sqlite3.SQLITE_CANTOPEN: Fault.INFRASTRUCTURE,
    sqlite3.SQLITE_PROTOCOL: Fault.INFRASTRUCTURE,
    sqlite3.SQLITE_NOTADB: Fault.SETUP,
}
# MySQL's error numbers, https://dev.mysql.com/doc/mysql-errors/8.4/en/.
_MYSQL = {
    1040: Fault.INFRASTRUCTURE,
    1053: Fault.INFRASTRUCTURE,
    1205: Fault.AGAIN,
    1213: Fault.AGAIN,
    1044: Fault.SETUP,
    1045: Fault.SETUP,
    1049: Fault.SETUP,
    2002: Fault.INFRASTRUCTURE,
    2003: Fault.INFRASTRUCTURE,
    2006: Fault.INFRASTRUCTURE,
    2013: Fault.INFRASTRUCTURE,
}
# Of several failures that came together, the one decides that leaves the most hope for the message.
_HOPE = (Fault.INFRASTRUCTURE, Fault.SETUP, Fault.AGAIN)
_DEEPEST = 10
_AWAY = (DatabaseUnreachableError, PoolTimeoutError, BrokerUnreachableError, CounterUnreachableError)


def fault_of(error: BaseException) -> Fault:
    """Give whose fault ``error`` is. Looks through exception groups and explicit causes (``raise ... from ...``)."""
    return _fault_of(error, _DEEPEST)


def _fault_of(error: BaseException, depth: int) -> Fault:
    if isinstance(error, _AWAY):
        return Fault.INFRASTRUCTURE
    if isinstance(error, DBAPIError):
        fault = _of_driver(error.orig)
        # An authentication that failed also invalidates its connection, so the code is asked first.
        return Fault.INFRASTRUCTURE if fault is Fault.MESSAGE and error.connection_invalidated else fault
    fault = _of_driver(error)
    if fault is not Fault.MESSAGE or depth == 0:
        return fault
    if isinstance(error, BaseExceptionGroup):
        faults = {_fault_of(member, depth - 1) for member in error.exceptions}
        return next((fault for fault in _HOPE if fault in faults), Fault.MESSAGE)
    return _fault_of(error.__cause__, depth - 1) if error.__cause__ is not None else Fault.MESSAGE


def _of_driver(error: BaseException | None) -> Fault:
    """Give whose fault an error of a driver is, by the code it carries."""
    sqlstate = getattr(error, "sqlstate", None)
    if isinstance(sqlstate, str):
        return _SQLSTATES.get(sqlstate) or _SQLSTATES.get(sqlstate[:2]) or Fault.MESSAGE
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_BUSY_SNAPSHOT:
            return Fault.AGAIN
        return _SQLITE.get(code & 0xFF, Fault.MESSAGE) if isinstance(code, int) else Fault.MESSAGE
    if type(error).__module__.partition(".")[0] in {"pymysql", "aiomysql", "asyncmy"} and error is not None and error.args:
        return _MYSQL.get(error.args[0], Fault.MESSAGE)
    return Fault.MESSAGE
