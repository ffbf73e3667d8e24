"""The transaction that surrounds the running code, if there is one, and what its calls go through."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from core.database.current import configured

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncSession

    from core.database.statements.gather import Gather
    from core.database.unit_of_work import SavepointSession, UnitOfWork


class _Transaction:
    """An open ``transaction()``: its session, which one task at a time may use; or one handler's part of a unit of work."""

    __slots__ = ("lock", "open", "session", "sessions", "unit")

    def __init__(self, session: AsyncSession, unit: UnitOfWork | None = None) -> None:
        self.session = session
        self.lock = asyncio.Lock() if unit is None else unit.lock
        self.open = True
        self.unit = unit
        self.sessions: list[SavepointSession] = []

    def own_session(self) -> SavepointSession | None:
        """Give the session that the handler has open, and with it the connection."""
        return next((session for session in self.sessions if session.open_), None)


_surrounding: ContextVar[_Transaction | None] = ContextVar("routemq_transaction", default=None)


def _find() -> _Transaction | None:
    transaction = _surrounding.get()
    # A task outlives the transaction it was started in: its calls are its own from then on.
    return transaction if transaction is not None and transaction.open else None


def is_surrounded() -> bool:
    """Say whether the running code is within a transaction, which commits what it writes."""
    return _find() is not None


def gathers() -> tuple[Gather, Gather] | None:
    """Give what gathers the writes and reads of the running code; None where its calls go one by one."""
    outer = _find()
    if outer is None:
        database_ = configured()
        return (database_.writes, database_.reads) if database_.gathers else None
    if outer.unit is None or outer.own_session() is not None:
        return None
    return outer.unit.writes, outer.unit.reads


async def get_session() -> AsyncSession:
    """Give a new session, which the caller commits and closes; within a unit of work one on its connection."""
    outer = _find()
    if outer is None or outer.unit is None:
        return configured().session()
    made = await outer.unit.open_session()
    outer.sessions.append(made)
    return made


class PartOf:
    """Has the calls of a block, one handler's, join ``unit``; sessions that it left open are closed at the end."""

    __slots__ = ("_part", "_token")

    def __init__(self, unit: UnitOfWork) -> None:
        self._part = _Transaction(unit.session, unit)

    async def __aenter__(self) -> None:
        self._token = _surrounding.set(self._part)

    async def __aexit__(self, *raised: object) -> None:
        self._part.open = False
        _surrounding.reset(self._token)
        for session in self._part.sessions:
            if session.open_:
                await session.close()


@asynccontextmanager
async def transaction() -> AsyncIterator[AsyncSession]:
    """Give the session of a transaction that the block's calls join, in this task and in those it starts.

    It commits at the end of the block and rolls back if that raises. Within another one it is a savepoint of that.
    """
    outer = _find()
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
    """Give a session for one call that writes: of the surrounding transaction, or in one of its own.

    Within a transaction the call is a savepoint, so that an error that the caller catches leaves the rest standing.
    """
    outer = _find()
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
    """Give a session for one call that reads: of the surrounding transaction, or one of its own."""
    outer = _find()
    if outer is None:
        async with configured().session() as session:
            yield session
    elif (own := outer.own_session()) is not None:
        yield own
    elif outer.unit is not None:
        async with outer.unit.statement() as session:
            yield session
    else:
        async with outer.lock:
            yield outer.session
