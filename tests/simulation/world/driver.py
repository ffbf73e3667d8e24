"""The driver and the dialect by which SQLAlchemy speaks to the simulated database."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.util import await_only

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from tests.simulation.world.database import Backend, Server

URL = "simulated://database"


class Error(Exception):
    """An error of the driver."""

    sqlstate = "XX000"

    def __init__(self, message: str, sqlstate: str = "XX000") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class DatabaseError(Error): ...


class InterfaceError(Error): ...


class OperationalError(DatabaseError): ...


class ProgrammingError(DatabaseError): ...


class IntegrityError(DatabaseError): ...


class DataError(DatabaseError): ...


class InternalError(DatabaseError): ...


class NotSupportedError(DatabaseError): ...


def error_of(sqlstate: str, message: str) -> Error:
    kinds = {"23": IntegrityError, "22": DataError, "42": ProgrammingError, "08": InterfaceError}
    return kinds.get(sqlstate[:2], OperationalError)(f"[{sqlstate}] {message}", sqlstate)


class Cursor:
    """A cursor, as the dialect sees it."""

    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self._rows: deque[Any] = deque()

    def execute(self, sql: str, parameters: Any = ()) -> None:
        self._take(await_only(self._connection.ask(sql, parameters)))

    def executemany(self, sql: str, parameters: Sequence[Any]) -> None:
        self._take(await_only(self._connection.ask(sql, parameters, many=True)))

    def _take(self, found: Any) -> None:
        self.description, rows, self.rowcount, self.lastrowid = found
        self._rows = deque(rows)

    def fetchone(self) -> Any:
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        return [self._rows.popleft() for _ in range(min(size or 1, len(self._rows)))]

    def fetchall(self) -> list[Any]:
        rows, self._rows = list(self._rows), deque()
        return rows

    def close(self) -> None:
        self._rows.clear()

    async def _async_soft_close(self) -> None: ...

    def setinputsizes(self, *sizes: Any) -> None: ...


class Connection(AdaptedConnection):
    """A connection, as the dialect sees it."""

    __slots__ = ("_backend", "_begun", "_server")

    def __init__(self, server: Server, backend: Backend) -> None:
        self._server = server
        self._backend = backend
        self._connection: Any = backend
        # Without a transaction, there is nothing to ask of the server.
        self._begun = False

    def ask(self, sql: str, parameters: Any = (), *, many: bool = False) -> Any:
        self._begun = True
        return self._server.ask(self._backend, sql, parameters, many=many)

    def cursor(self, *arguments: Any) -> Cursor:
        return Cursor(self)

    def commit(self) -> None:
        if self._begun:
            self._begun = False
            await_only(self._server.ask(self._backend, "COMMIT"))

    def rollback(self) -> None:
        if self._begun:
            self._begun = False
            await_only(self._server.ask(self._backend, "ROLLBACK"))

    def close(self) -> None:
        self._server.close(self._backend)

    def terminate(self) -> None:
        self._server.close(self._backend)


class Driver:
    """The module of the driver, as SQLAlchemy sees it. ``server`` is the one of the present run."""

    Error, DatabaseError, InterfaceError, OperationalError = Error, DatabaseError, InterfaceError, OperationalError
    ProgrammingError, IntegrityError, DataError = ProgrammingError, IntegrityError, DataError
    InternalError, NotSupportedError = InternalError, NotSupportedError
    paramstyle = "qmark"
    sqlite_version_info = sqlite3.sqlite_version_info
    server: Server

    @staticmethod
    def Binary(value: bytes) -> bytes:  # noqa: N802 - DBAPI's name
        return value

    def connect(self, **options: Any) -> Connection:
        loop: Any = asyncio.get_running_loop()
        return Connection(self.server, await_only(self.server.connect(loop)))


DRIVER = Driver()


class Dialect(SQLiteDialect):
    """SQLite's SQL over the simulated connection."""

    driver = "simulated"
    default_paramstyle = "qmark"
    is_async = True
    has_terminate = True
    supports_statement_cache = True
    _one: Any = None

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        # Compiled statements are kept by dialect: one dialect for all runs compiles each statement once.
        if cls._one is None:
            cls._one = super().__new__(cls)
        one: Self = cls._one
        return one

    def __init__(self, **options: Any) -> None:
        if not hasattr(self, "identifier_preparer"):
            super().__init__(**options)

    @classmethod
    def import_dbapi(cls) -> Any:
        return DRIVER

    def create_connect_args(self, url: Any) -> Any:
        return [], {}

    def initialize(self, connection: Any) -> None: ...

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        return str(getattr(e, "sqlstate", "")).startswith(("08", "57P", "25P03"))

    def do_terminate(self, dbapi_connection: Any) -> None:
        dbapi_connection.terminate()

    def get_driver_connection(self, connection: Any) -> Any:
        return connection


registry.impls["simulated"] = lambda: Dialect
