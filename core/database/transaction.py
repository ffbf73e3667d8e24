"""The transaction that surrounds the running code, and the sessions that its calls use."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from core.database.current import configured
from core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from core.database.statements.gather import Gather
    from core.database.unit_of_work import UnitOfWork


class SavepointSession(AsyncSession):
    """A session on the connection of a transaction. Its ``commit()`` releases a savepoint, and the transaction commits.

    While it is open, the other calls of the transaction wait for the connection. ``opened_at`` is the line that opened it.
    """

    lock: asyncio.Lock
    opened_at: str
    is_open = True

    async def close(self) -> None:
        """Roll back what was not committed, and let the other calls use the connection."""
        try:
            await super().close()
        finally:
            if self.is_open:
                self.is_open = False
                self.lock.release()


class _Transaction:
    """What surrounds the running code: a block of ``transaction()``, a handler's part of a unit of work, a session in one.

    - ``session``: the session of the transaction.
    - ``lock``: held by the task that uses the session, which is one task at a time.
    - ``open``: False from the end of the block on.
    - ``unit``: the unit of work. None for all but a handler's part of it.
    - ``outer``: what surrounds the running code again when this has ended.
    - ``inner``: the session that was opened in it last. While that is open, it holds the lock.
    """

    __slots__ = ("inner", "lock", "open", "outer", "session", "unit")

    def __init__(self, session: AsyncSession, unit: UnitOfWork | None = None, outer: _Transaction | None = None) -> None:
        self.session = session
        self.lock = asyncio.Lock() if unit is None else unit.lock
        self.open = True
        self.unit = unit
        self.outer = outer
        self.inner: _Session | None = None

    def is_open(self) -> bool:
        """Return whether it has not ended."""
        return self.open

    async def end(self) -> None:
        """End it, and close the session that was left open in it."""
        self.open = False
        if self.inner is not None and self.inner.is_open():
            await self.inner.session.close()


class _Session(_Transaction):
    """A session that was opened within a transaction. What the running code calls belongs to it until it is closed."""

    __slots__ = ("_opener",)

    session: SavepointSession

    def __init__(self, session: SavepointSession, outer: _Transaction) -> None:
        super().__init__(session, outer=outer)
        self._opener = asyncio.current_task()

    def is_open(self) -> bool:
        """Return whether the session is not closed."""
        return self.session.is_open

    def is_left(self) -> bool:
        """Return whether the task that opened it has ended and left it to others, as ``asyncio.wait_for`` does."""
        return self._opener is None or self._opener.done()


class Gathers(NamedTuple):
    """What the calls of the running code are gathered by: one ``Gather`` for writes, and one for reads."""

    writes: Gather
    reads: Gather


_surrounding: ContextVar[_Transaction | None] = ContextVar("routemq_transaction", default=None)


def _surrounding_transaction() -> _Transaction | None:
    found = _surrounding.get()
    while found is not None:
        if not found.is_open():
            # A task may outlive the transaction in which it was started. Its calls are no part of that from then on.
            found = found.outer
        elif (inner := found.inner) is not None and inner.is_open() and inner.is_left():
            found = inner
        else:
            break
    return found


def is_surrounded() -> bool:
    """Return whether the running code is within a transaction, which commits what the code writes."""
    return _surrounding_transaction() is not None


def gathers() -> Gathers | None:
    """Return what gathers the calls of the running code. Return None if each of its calls is a statement by itself."""
    outer = _surrounding_transaction()
    if outer is None:
        database = configured()
        return Gathers(database.writes, database.reads) if database.gathers else None
    if outer.unit is None:
        return None
    return Gathers(outer.unit.writes, outer.unit.reads)


async def get_session() -> AsyncSession:
    """Return a new session, which the caller commits and closes. Within a transaction it is on the transaction's connection.

    Raise ModelError if another one is open there, for which this one would wait while its caller waits for it.
    """
    outer = _surrounding_transaction()
    if outer is None:
        return configured().session()
    if isinstance(outer, _Session):
        raise ModelError(
            f"a second session is opened at {_caller()} while that of {outer.session.opened_at} is open. Both belong to one "
            "transaction, whose connection one session at a time can use. Close the first one before, or pass it on"
        )
    await outer.lock.acquire()
    if not outer.is_open():
        outer.lock.release()
        return await get_session()
    try:
        # What was added to the transaction's session is seen by this one.
        await outer.session.flush()
        connection: Any = await outer.session.connection()
        made = SavepointSession(
            bind=connection,
            join_transaction_mode="create_savepoint",
            expire_on_commit=False,
            # When it is closed, others use the connection.
            close_resets_only=False,
        )
    except BaseException:
        outer.lock.release()
        raise
    made.lock = outer.lock
    made.opened_at = _caller()
    outer.inner = _Session(made, outer)
    _surrounding.set(outer.inner)
    return made


def _caller() -> str:
    """Return the file and the line of the application that made the running call."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in {"core", "contextlib"}:
        frame = frame.f_back
    if frame is None:
        return "an unknown place"
    return f"{'/'.join(Path(frame.f_code.co_filename).parts[-3:])}:{frame.f_lineno}"


class PartOf:
    """A block whose calls are part of ``unit``: the run of one handler.

    At its end, the session that the handler left open is closed.
    """

    __slots__ = ("_part", "_token")

    def __init__(self, unit: UnitOfWork) -> None:
        self._part = _Transaction(unit.session, unit)

    async def __aenter__(self) -> None:
        self._token = _surrounding.set(self._part)

    async def __aexit__(self, *raised: object) -> None:
        _surrounding.reset(self._token)
        await self._part.end()


@asynccontextmanager
async def transaction() -> AsyncIterator[AsyncSession]:
    """Open a transaction that the block's calls join, in this task and in those that it starts. Yield its session.

    It commits at the end of the block, and rolls back if the block raises. Within another transaction it is a savepoint.
    """
    outer = _surrounding_transaction()
    if outer is None:
        async with configured().writing() as session, _surround(session):
            yield session
    else:
        async with outer.lock, outer.session.begin_nested(), _surround(outer.session):
            yield outer.session


@asynccontextmanager
async def _surround(session: AsyncSession) -> AsyncIterator[None]:
    block = _Transaction(session, outer=_surrounding_transaction())
    token = _surrounding.set(block)
    try:
        yield
    finally:
        await block.end()
        async with block.lock:
            _surrounding.reset(token)


@asynccontextmanager
async def writing() -> AsyncIterator[AsyncSession]:
    """Yield a session for one call that writes: that of the surrounding transaction, or one in a transaction of its own.

    Within a transaction the call is a savepoint. So an error that the caller catches does not undo the other calls.
    """
    outer = _surrounding_transaction()
    if outer is None:
        async with configured().writing() as session:
            yield session
    elif outer.unit is not None:
        async with outer.unit.statement() as session:
            yield session
    else:
        async with outer.lock, outer.session.begin_nested():
            yield outer.session


@asynccontextmanager
async def reading() -> AsyncIterator[AsyncSession]:
    """Yield a session for one call that reads: that of the surrounding transaction, or one of its own."""
    outer = _surrounding_transaction()
    if outer is None:
        async with configured().session() as session:
            yield session
    elif outer.unit is not None:
        async with outer.unit.statement() as session:
            yield session
    else:
        async with outer.lock:
            yield outer.session
