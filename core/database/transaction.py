"""The transaction that surrounds the running code, and the sessions that its calls use."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from core.database.current import configured

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncSession

    from core.database.statements.gather import Gather
    from core.database.unit_of_work import SavepointSession, UnitOfWork


class _Transaction:
    """A block of ``transaction()``, or one handler's part of a unit of work.

    - ``session``: the session of the transaction.
    - ``lock``: held by the task that uses the session, which is one task at a time.
    - ``open``: False from the end of the block on.
    - ``unit``: the unit of work. None for a block of ``transaction()``.
    - ``sessions``: the sessions that the handler opened on the unit's connection.
    """

    __slots__ = ("lock", "open", "session", "sessions", "unit")

    def __init__(self, session: AsyncSession, unit: UnitOfWork | None = None) -> None:
        self.session = session
        self.lock = asyncio.Lock() if unit is None else unit.lock
        self.open = True
        self.unit = unit
        self.sessions: list[SavepointSession] = []

    def own_session(self) -> SavepointSession | None:
        """Return the open session of the handler, which holds the connection. Return None if no session is open."""
        return next((session for session in self.sessions if session.is_open), None)


class Gathers(NamedTuple):
    """What the calls of the running code are gathered by: one ``Gather`` for writes, and one for reads."""

    writes: Gather
    reads: Gather


_surrounding: ContextVar[_Transaction | None] = ContextVar("routemq_transaction", default=None)


def _surrounding_transaction() -> _Transaction | None:
    transaction = _surrounding.get()
    # A task may outlive the transaction in which it was started. Its calls are no part of a transaction from then on.
    return transaction if transaction is not None and transaction.open else None


def is_surrounded() -> bool:
    """Return whether the running code is within a transaction, which commits what the code writes."""
    return _surrounding_transaction() is not None


def gathers() -> Gathers | None:
    """Return what gathers the calls of the running code. Return None if each of its calls is a statement by itself."""
    outer = _surrounding_transaction()
    if outer is None:
        database = configured()
        return Gathers(database.writes, database.reads) if database.gathers else None
    if outer.unit is None or outer.own_session() is not None:
        return None
    return Gathers(outer.unit.writes, outer.unit.reads)


async def get_session() -> AsyncSession:
    """Return a new session, which the caller commits and closes. Within a unit of work it is on the unit's connection."""
    outer = _surrounding_transaction()
    if outer is None or outer.unit is None:
        return configured().session()
    made = await outer.unit.open_session()
    outer.sessions.append(made)
    return made


class PartOf:
    """A block whose calls are part of ``unit``: the run of one handler.

    At its end, the sessions that the handler left open are closed.
    """

    __slots__ = ("_part", "_token")

    def __init__(self, unit: UnitOfWork) -> None:
        self._part = _Transaction(unit.session, unit)

    async def __aenter__(self) -> None:
        self._token = _surrounding.set(self._part)

    async def __aexit__(self, *raised: object) -> None:
        self._part.open = False
        _surrounding.reset(self._token)
        for session in self._part.sessions:
            if session.is_open:
                await session.close()


@asynccontextmanager
async def transaction() -> AsyncIterator[AsyncSession]:
    """Open a transaction that the block's calls join, in this task and in those that it starts. Yield its session.

    It commits at the end of the block, and rolls back if the block raises. Within another transaction it is a savepoint.
    """
    outer = _surrounding_transaction()
    if outer is None:
        async with configured().writing() as session, _surround(session):
            yield session
    elif (own := outer.own_session()) is not None:
        async with own.begin_nested(), _surround(own):
            yield own
    else:
        async with outer.lock, outer.session.begin_nested(), _surround(outer.session):
            yield outer.session


@asynccontextmanager
async def _surround(session: AsyncSession) -> AsyncIterator[None]:
    inner = _Transaction(session)
    token = _surrounding.set(inner)
    try:
        yield
    finally:
        async with inner.lock:
            inner.open = False
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
    elif (own := outer.own_session()) is not None:
        async with own.begin_nested():
            yield own
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
        async with configured().reading() as session:
            yield session
    elif (own := outer.own_session()) is not None:
        yield own
    elif outer.unit is not None:
        async with outer.unit.statement() as session:
            yield session
    else:
        async with outer.lock:
            yield outer.session
