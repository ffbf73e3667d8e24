"""Whose fault an exception is: the message's own or the infrastructure's."""

from __future__ import annotations

import re
import sqlite3
from enum import Enum
from typing import Any

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from core.errors import (
    BrokerUnreachableError,
    CounterUnreachableError,
    DatabaseTimeoutError,
    DatabaseUnreachableError,
    HungUpError,
    ModelError,
    RowLeftOutError,
    SessionTakenOverError,
)


class Fault(Enum):
    """Whose fault a failure is, and so what helps against it.

    - ``MESSAGE``: the message or its handler is at fault. A few attempts may help, more of them do not.
    - ``AGAIN``: a transaction lost against another one. It helps to run it again at once.
    - ``INFRASTRUCTURE``: the database, the broker or Redis is away, or the database is full or overloaded. It helps to wait.
    - ``SETUP``: a password is wrong, or a database does not exist. A person has to mend that.
    - ``SCHEMA``: a table, a column or a privilege is missing. A person has to mend that too, but it stops only those routes
      that need it.
    """

    MESSAGE = "message"
    AGAIN = "again"
    INFRASTRUCTURE = "infrastructure"
    SETUP = "setup"
    SCHEMA = "schema"


AWAY = frozenset({Fault.INFRASTRUCTURE, Fault.SETUP})
"""Faults that anybody meets, whatever is sent to the database."""

# PostgreSQL's error codes, from appendix A of its documentation. Two characters stand for a whole class.
_SQLSTATES = {
    "08": Fault.INFRASTRUCTURE,  # connection exceptions
    "53": Fault.INFRASTRUCTURE,  # insufficient resources: disk full, too many connections
    "57P01": Fault.INFRASTRUCTURE,  # admin_shutdown
    "57P02": Fault.INFRASTRUCTURE,  # crash_shutdown
    "57P03": Fault.INFRASTRUCTURE,  # cannot_connect_now
    "57P05": Fault.INFRASTRUCTURE,  # idle_session_timeout
    "58": Fault.INFRASTRUCTURE,  # system errors: input and output
    "25006": Fault.INFRASTRUCTURE,  # read_only_sql_transaction: a standby, until it takes over
    "57014": Fault.INFRASTRUCTURE,  # query_canceled: statement_timeout, mostly behind a lock
    "55P03": Fault.INFRASTRUCTURE,  # lock_not_available: somebody holds the table, a migration for instance
    "25P03": Fault.INFRASTRUCTURE,  # idle_in_transaction_session_timeout
    "26000": Fault.INFRASTRUCTURE,  # invalid_sql_statement_name: a pooler gave the connection to another server session
    "42P05": Fault.INFRASTRUCTURE,  # duplicate_prepared_statement: likewise
    "40001": Fault.AGAIN,  # serialization_failure
    "40P01": Fault.AGAIN,  # deadlock_detected
    "28": Fault.SETUP,  # invalid authorization
    "3D000": Fault.SETUP,  # invalid_catalog_name: no such database
    "3F000": Fault.SCHEMA,  # invalid_schema_name
    "42P01": Fault.SCHEMA,  # undefined_table
    "42703": Fault.SCHEMA,  # undefined_column
    "42501": Fault.SCHEMA,  # insufficient_privilege
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
    1054: Fault.SCHEMA,
    1142: Fault.SCHEMA,
    1143: Fault.SCHEMA,
    1146: Fault.SCHEMA,
    2002: Fault.INFRASTRUCTURE,
    2003: Fault.INFRASTRUCTURE,
    2006: Fault.INFRASTRUCTURE,
    2013: Fault.INFRASTRUCTURE,
}
# The faults that leave hope for a message, the most hopeful one first. The first one in an exception group decides.
_HOPEFUL = (Fault.INFRASTRUCTURE, Fault.SETUP, Fault.SCHEMA, Fault.AGAIN)
# What SQLite says, by its general code, of a table or a column that is missing.
_SQLITE_SCHEMA = re.compile(r"no such (table|column)\b|table \S+ has no column named\b")
_LOCKED = ("55P03", "57014")
_MAX_DEPTH = 10
_FINAL = (KeyError, TypeError, AttributeError, ModelError, RowLeftOutError, HungUpError)
"""What no waiting heals: mistakes in a handler's code, rows that the database leaves out, what the broker hangs up on."""
_UNREACHABLE = (
    DatabaseUnreachableError,
    PoolTimeoutError,
    BrokerUnreachableError,
    CounterUnreachableError,
    # Another process has the session: this one is about to end.
    SessionTakenOverError,
)


def fault_of(error: BaseException) -> Fault:
    """Return whose fault ``error`` is.

    The members of an exception group and explicit causes (``raise ... from ...``) count too, ten levels deep at most.
    """
    return _fault_of(error, _MAX_DEPTH)


def _fault_of(error: BaseException, depth: int) -> Fault:
    if isinstance(error, (*_UNREACHABLE, DatabaseTimeoutError)):
        return Fault.INFRASTRUCTURE
    if isinstance(error, DBAPIError):
        fault = _of_driver(error.orig)
        # A failed authentication invalidates its connection too, so the code decides first.
        return Fault.INFRASTRUCTURE if fault is Fault.MESSAGE and error.connection_invalidated else fault
    fault = _of_driver(error)
    if fault is not Fault.MESSAGE or depth == 0:
        return fault
    if isinstance(error, BaseExceptionGroup):
        faults = {_fault_of(member, depth - 1) for member in error.exceptions}
        return next((fault for fault in _HOPEFUL if fault in faults), Fault.MESSAGE)
    return _fault_of(error.__cause__, depth - 1) if error.__cause__ is not None else Fault.MESSAGE


def _of_driver(error: BaseException | None) -> Fault:
    """Return whose fault a driver's error is, by its error code. An error without a known code is the message's fault."""
    sqlstate = getattr(error, "sqlstate", None)
    if isinstance(sqlstate, str):
        return _SQLSTATES.get(sqlstate) or _SQLSTATES.get(sqlstate[:2]) or Fault.MESSAGE
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_BUSY_SNAPSHOT:
            return Fault.AGAIN
        if code == sqlite3.SQLITE_ERROR and _SQLITE_SCHEMA.match(str(error)):
            return Fault.SCHEMA
        return _SQLITE.get(code & 0xFF, Fault.MESSAGE) if isinstance(code, int) else Fault.MESSAGE
    if type(error).__module__.partition(".")[0] in {"pymysql", "aiomysql", "asyncmy"} and error is not None and error.args:
        return _MYSQL.get(error.args[0], Fault.MESSAGE)
    return Fault.MESSAGE


def is_unreachable(error: BaseException) -> bool:
    """Return whether ``error`` says that there is no connection, for which no message can be to blame."""
    return isinstance(error, _UNREACHABLE) or (error.__cause__ is not None and is_unreachable(error.__cause__))


def is_patient(error: BaseException) -> bool:
    """Return whether ``error`` says that somebody else holds a lock, which ends by itself, however long it takes."""
    return getattr(getattr(error, "orig", error), "sqlstate", None) in _LOCKED


def kind_of(error: BaseException) -> str:
    """Return what two errors of one kind have in common: the class, and the SQLSTATE where there is one."""
    original: Any = getattr(error, "orig", None)
    return f"{type(error).__qualname__} {getattr(original, 'sqlstate', None) or ''}".rstrip()


def can_heal(error: BaseException) -> bool:
    """Return whether running a message again may help that failed with ``error`` by its own fault.

    A mistake in the handler's code, data that the database refuses (SQLSTATE 22 and 23), and a message that the broker hangs
    up on, stay what they are.
    """
    if isinstance(error, _FINAL):
        return False
    if isinstance(error, DBAPIError):
        return not isinstance(error, DataError | IntegrityError)
    return error.__cause__ is None or can_heal(error.__cause__)
