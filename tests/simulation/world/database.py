"""The database: SQLite without threads behind a dialect of its own, which answers late, wrongly or never when it is told to.

To the code under test it is like PostgreSQL: transactions run side by side, an error spoils its transaction until that is
rolled back, errors carry an SQLSTATE, and constraints may be checked by COMMIT. One transaction at a time writes.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from typing import TYPE_CHECKING, Any

from sqlalchemy.schema import CreateIndex, CreateTable

from tests.simulation.world.driver import Dialect, Error, error_of

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from tests.simulation.world.loop import VirtualLoop, World

SPELLS = {"disk_full": "53100", "conflict": "40001"}
"""Values that no table takes, and the SQLSTATE with which it refuses them, each time."""
ANSWERS = "readings"
"""The table whose statements the faults of tables are about."""


def _translated(error: sqlite3.Error) -> Error:
    text = str(error)
    for sign, sqlstate in (("NOT NULL", "23502"), ("UNIQUE", "23505"), ("FOREIGN KEY", "23503"), ("CHECK", "23514")):
        if sign in text:
            return error_of(sqlstate, text)
    return error_of("42601", text)


class Request:
    """What a process asks of the database, and the future of the answer."""

    __slots__ = ("future", "loop", "many", "parameters", "sql")

    def __init__(self, loop: VirtualLoop, sql: str, parameters: Any, *, many: bool) -> None:
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.sql = sql
        self.parameters = parameters
        self.many = many

    def answer(self, result: Any = None, error: BaseException | None = None) -> None:
        if self.loop.dead or self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class Backend:
    """The server's side of one connection."""

    def __init__(self, loop: VirtualLoop, number: int) -> None:
        self.loop = loop
        self.number = number
        self.closed = False
        self.gone = False
        self.standby = False
        self.writes = False
        self.spoilt = False
        self.committing = False
        self.under_way: Request | None = None


class Server:
    """The database server of one run. It keeps what was committed, whoever dies.

    ``files`` holds the tables, which are emptied for the run.
    """

    def __init__(self, world: World, files: Files, latency: float) -> None:
        self.world = world
        self.latency = latency
        self.reader = files.reader
        self._writer = files.writer
        # What the open transaction has done so far.
        self._done: list[Request] = []
        self.backends: list[Backend] = []
        self._numbers = 0
        self._lock: Backend | None = None
        self._queue: deque[tuple[Backend, Request]] = deque()
        self.down_until = 0.0
        self.hangs_until = 0.0
        self.locked_until = 0.0
        self.lock_code = ""
        self.schema_until = 0.0
        self.schema_code = ""
        self.codes: list[list[Any]] = []
        self.lost_commits: list[list[Any]] = []
        files.clear()

    # -- asked by processes --------------------------------------------------------------------------------------------

    async def connect(self, loop: VirtualLoop) -> Backend:
        """Open a connection. Raise ConnectionRefusedError while the server is down."""
        if not loop.dead:
            await asyncio.sleep(max(self.latency, self.hangs_until - self.world.now))
        if loop.dead or self.world.now < self.down_until:
            raise ConnectionRefusedError(111, "Connection refused")
        self._numbers += 1
        backend = Backend(loop, self._numbers)
        self.backends.append(backend)
        return backend

    async def ask(self, backend: Backend, sql: str, parameters: Any = (), *, many: bool = False) -> Any:
        """Carry out a statement, COMMIT or ROLLBACK. Return its columns, rows, row count and last number."""
        if backend.loop.dead or backend.closed or backend.gone:
            raise error_of("08003", "the connection is closed")
        request = Request(backend.loop, sql, parameters, many=many)
        backend.under_way = request
        if sql == "COMMIT":
            backend.committing = True
        self.world.after(self.latency * self.world.random.uniform(0.5, 1.5), self._arrive, backend, request)
        return await request.future

    def close(self, backend: Backend) -> None:
        """Close the connection of a process that may have died."""
        if not backend.closed:
            backend.closed = True
            self.world.after(self.latency, self._end, backend)

    def drop(self, loop: VirtualLoop) -> None:
        """Close all connections of a process."""
        for backend in list(self.backends):
            if backend.loop is loop:
                self.close(backend)

    # -- on the server -------------------------------------------------------------------------------------------------

    def _arrive(self, backend: Backend, request: Request) -> None:
        if backend.gone or (backend.closed and request.sql != "COMMIT"):
            return
        now = self.world.now
        if now < self.hangs_until:
            self.world.at(self.hangs_until, self._arrive, backend, request)
            return
        if request.sql == "COMMIT":
            self._commit(backend, request)
        elif request.sql == "ROLLBACK":
            self._roll_back(backend)
            request.answer()
        else:
            self._execute(backend, request)

    def _execute(self, backend: Backend, request: Request) -> None:
        sql, now = request.sql, self.world.now
        verb = sql.split(None, 1)[0].upper()
        reads = verb in {"SELECT", "WITH"}
        if backend.spoilt and not sql.startswith("ROLLBACK TO"):
            request.answer(error=error_of("25P02", "current transaction is aborted"))
            return
        error = None
        if backend.standby and not reads:
            error = error_of("25006", "cannot execute in a read-only transaction")
        elif ANSWERS in sql and now < self.schema_until:
            error = error_of(self.schema_code, "relation or permission is missing")
        elif ANSWERS in sql and now < self.locked_until:
            if not self.lock_code:
                self.world.at(self.locked_until, self._arrive, backend, request)
                return
            error = error_of(self.lock_code, "the table is locked")
        elif not reads:
            error = self._injected("statement") or _spell(request)
        if error is not None:
            self.world.tell("database", f"{error} for {_short(sql)}")
            self._fail(backend, request, error)
            return
        if not reads and not self._write_lock(backend, request):
            return
        raw = self._writer if backend.writes else self.reader
        try:
            cursor = raw.executemany(sql, request.parameters) if request.many else raw.execute(sql, request.parameters)
            rows = cursor.fetchall() if cursor.description else []
        except sqlite3.Error as raised:
            error = _translated(raised)
            self.world.tell("database", f"{error} for {_short(sql)}")
            self._fail(backend, request, error)
            return
        if backend.writes:
            self._done.append(request)
        if verb == "ROLLBACK":
            backend.spoilt = False
        if verb in {"INSERT", "UPDATE", "DELETE"}:
            self.world.tell("database", f"connection {backend.number}: {_short(sql)}")
        request.answer((cursor.description, rows, cursor.rowcount, cursor.lastrowid))

    def _fail(self, backend: Backend, request: Request, error: Error) -> None:
        backend.spoilt = True
        if error.sqlstate in {"25P03", "57P01"}:
            # The server hangs up behind these.
            self._end(backend)
        request.answer(error=error)

    def _injected(self, where: str) -> Error | None:
        for code in self.codes:
            if code[1] == where:
                code[2] -= 1
                if not code[2]:
                    self.codes.remove(code)
                return error_of(code[0], "injected")
        return None

    def _write_lock(self, backend: Backend, request: Request) -> bool:
        if self._lock is backend:
            return True
        if self._lock is not None:
            self._queue.append((backend, request))
            return False
        self._lock = backend
        backend.writes = True
        self._writer.execute("BEGIN IMMEDIATE")
        self._done.clear()
        return True

    def _release(self, backend: Backend) -> None:
        backend.spoilt = False
        if self._lock is not backend:
            return
        self._lock = None
        backend.writes = False
        # One that fails leaves the lock to the next.
        while self._queue and self._lock is None:
            waiting, request = self._queue.popleft()
            if not waiting.closed and not waiting.gone:
                self._arrive(waiting, request)

    def _commit(self, backend: Backend, request: Request) -> None:
        if self.lost_commits and self._lock is backend:
            how, seconds = self.lost_commits.pop(0)
            self.world.tell("database", f"connection {backend.number} breaks within COMMIT, which will be {how}")
            request.answer(error=error_of("08006", "the connection broke within COMMIT"))
            backend.closed = True
            if how == "later":
                self.world.after(seconds, self._finish_commit, backend, request)
                return
            if how == "undone":
                self._roll_back(backend)
        self._finish_commit(backend, request)

    def _finish_commit(self, backend: Backend, request: Request) -> None:
        backend.committing = False
        error = None
        if backend.gone:
            return
        if self._lock is backend:
            error = self._injected("commit")
            if error is None and not backend.spoilt:
                try:
                    self._writer.execute("COMMIT")
                    self._repeat()
                    self.world.tell("database", f"connection {backend.number} commits")
                except sqlite3.Error as raised:
                    error = _translated(raised)
            if error is not None:
                self.world.tell("database", f"{error} for COMMIT")
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        self._release(backend)
        request.answer(error=error)
        if backend.closed:
            self._end(backend)

    def _repeat(self) -> None:
        """Let everybody see what was committed."""
        self.reader.execute("BEGIN")
        for done in self._done:
            if done.many:
                self.reader.executemany(done.sql, done.parameters)
            else:
                self.reader.execute(done.sql, done.parameters).fetchall()
        self.reader.execute("COMMIT")

    def _roll_back(self, backend: Backend) -> None:
        if self._lock is backend and self._writer.in_transaction:
            self._writer.execute("ROLLBACK")
        self._release(backend)

    def _end(self, backend: Backend) -> None:
        if backend.gone or (backend.committing and backend.closed):
            return
        backend.gone = True
        if backend in self.backends:
            self.backends.remove(backend)
        self._roll_back(backend)
        if backend.under_way is not None:
            backend.under_way.answer(error=error_of("08006", "the server closed the connection"))

    # -- faults --------------------------------------------------------------------------------------------------------

    def crash(self, seconds: float) -> None:
        """End all connections, roll back, and refuse new ones for ``seconds``."""
        self.down_until = self.world.now + seconds
        for backend in list(self.backends):
            backend.committing = False
            self._end(backend)

    def fail_over(self, seconds: float) -> None:
        """Let all connections lead to a standby from now on, and refuse new ones for ``seconds``."""
        self.down_until = self.world.now + seconds
        for backend in self.backends:
            backend.standby = True

    def finish(self) -> None:
        """Roll back what is open at the end of the run."""
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")


def _spell(request: Request) -> Error | None:
    if ANSWERS not in request.sql:
        return None
    rows = request.parameters if request.many else (request.parameters,)
    for row in rows:
        for spell, sqlstate in SPELLS.items():
            if spell in row:
                return error_of(sqlstate, f"for the value {spell}")
    return None


def _short(sql: str) -> str:
    words = sql.split()
    return " ".join(words[:3]) + (f" ({sql.count('(?') or 1} rows)" if words[0] == "INSERT" else "")


class Files:
    """The tables of this interpreter: made once, and emptied for each run.

    ``writer`` has what the open transaction sees, and ``reader`` what was committed: each transaction is repeated there.
    """

    def __init__(self, *metadatas: MetaData) -> None:
        dialect = Dialect(dbapi=Dialect.import_dbapi())
        tables = [table for metadata in metadatas for table in metadata.sorted_tables]
        self._tables = [table.name for table in reversed(tables)]
        made = [str(CreateTable(table).compile(dialect=dialect)) for table in tables]
        for table in tables:
            indexes = sorted(table.indexes, key=lambda index: str(index.name))
            made += [str(CreateIndex(index).compile(dialect=dialect)) for index in indexes]
        self.writer, self.reader = (_memory(made) for _ in range(2))

    def clear(self) -> None:
        """Empty all tables."""
        for side in (self.writer, self.reader):
            for table in self._tables:
                if side.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():
                    side.execute(f"DELETE FROM {table}")


def _memory(statements: list[str]) -> sqlite3.Connection:
    opened = sqlite3.connect(":memory:", isolation_level=None, cached_statements=512)
    for statement in ("PRAGMA foreign_keys=ON", *statements):
        opened.execute(statement)
    return opened
