"""The transaction that surrounds the running code, and the sessions that its calls use."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, Self

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession

from core.database.current import configured
from core.errors import BatchError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from contextvars import Token

    from core.database.statements.gather import Gather, Statement
    from core.database.unit_of_work import Unit


class Gathers(Protocol):
    """Gathers calls (see ``core.database.statements.gather``)."""

    def call(self, statement: Statement, value: Any, /) -> asyncio.Future[Any]:
        """Have ``statement`` carry out ``value``. Return the future of its result."""


class CallersSession(AsyncSession):
    """A session that its caller commits and closes. ``has_committed`` says whether it has."""

    has_committed = False

    async def __aexit__(self, *raised: object) -> None:
        """Close the session. Have a BatchError that leaves it know whether that undoes something."""
        error = raised[1]
        if isinstance(error, BatchError) and (self.in_transaction() or not self.has_committed):
            error.undone = True
        await super().__aexit__(*raised)


class SavepointSession(CallersSession):
    """A session on the connection of a transaction. Its ``commit()`` releases a savepoint, and the transaction commits.

    ``within`` is what surrounds it, whose connection it holds until it is closed.
    """

    within: Surroundings
    is_open = True

    async def close(self) -> None:
        """Roll back what was not committed, and let others use the connection."""
        try:
            await super().close()
        finally:
            if self.is_open:
                self.is_open = False
                await self.within.session_closed(committed=self.has_committed)


class Surroundings(ABC):
    """A transaction that surrounds the running code, or a session within one.

    - ``open``: False from the end on.
    - ``outer``: what surrounds the code when this has ended.
    - ``inner``: the session that was opened in it last.
    """

    __slots__ = ("inner", "open", "outer")

    def __init__(self, outer: Surroundings | None = None) -> None:
        self.open = True
        self.outer = outer
        self.inner: InSession | None = None

    async def open_session(self) -> SavepointSession:
        """Return a session on the transaction's connection, which the code commits and closes.

        What the code calls from now on is within it, and so is what it calls in the tasks that it starts.
        """
        made = _session_on(await self.hold_connection())
        made.within = self
        self.inner = InSession(made, self)
        _surroundings.set(self.inner)
        return made

    async def close_sessions(self) -> None:
        """Close the sessions that the code left open. A connection that is lost by then shows itself at the commit."""
        inner = self.inner
        if inner is not None and inner.session.is_open:
            await inner.close_sessions()
            with suppress(Exception):
                await inner.session.close()

    @abstractmethod
    def writes(self) -> Gathers | None:
        """Return what gathers calls that write. None if each is a statement by itself."""

    @abstractmethod
    def reads(self) -> Gathers | None:
        """Return what gathers calls that read. None if each is a statement by itself."""

    @abstractmethod
    def writing(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a block for one call that writes. Yield its session."""

    @abstractmethod
    def reading(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a block for one call that reads. Yield its session."""

    @abstractmethod
    def block(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a transaction within this one. Yield its session."""

    @abstractmethod
    async def hold_connection(self) -> Any:
        """Return the connection. Nobody else uses it until ``session_closed``."""

    @abstractmethod
    async def session_closed(self, *, committed: bool) -> None:
        """Let others use the connection. ``committed`` says whether the session committed something."""


class Block(Surroundings):
    """A block of ``transaction()`` with its ``session``, which one task at a time may use."""

    __slots__ = ("_lock", "_session")

    def __init__(self, session: AsyncSession, outer: Surroundings | None = None) -> None:
        super().__init__(outer)
        self._session = session
        self._lock = asyncio.Lock()

    def writes(self) -> None:
        """Return None, because each call is a savepoint."""

    def reads(self) -> None:
        """Return None, because each call is a statement."""

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """Yield the session within a savepoint, so that an error which the caller catches does not undo the other calls."""
        async with self._lock, self._session.begin_nested():
            yield self._session

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """Yield the session."""
        async with self._lock:
            yield self._session

    block = writing

    async def hold_connection(self) -> Any:
        """Return the connection of the session."""
        await self._lock.acquire()
        try:
            # What was added to this session is seen by the one that is opened.
            await self._session.flush()
            return await self._session.connection()
        except BaseException:
            self._lock.release()
            raise

    async def session_closed(self, *, committed: bool) -> None:
        """Let others use the connection."""
        self._lock.release()

    async def end(self) -> None:
        """Wait for the call that uses the session. Calls that come later are no part of the transaction."""
        async with self._lock:
            self.open = False


class InSession(Block):
    """A session that was opened within a transaction, or within another session. Tasks take turns on it.

    ``session`` is the session. It surrounds the code that opened it, until it is closed.
    """

    __slots__ = ("_opener", "session")

    def __init__(self, session: SavepointSession, outer: Surroundings) -> None:
        super().__init__(session, outer)
        self.session = session
        self._opener = asyncio.current_task()

    def is_left(self) -> bool:
        """Return whether the task that opened it has ended and left it to others, as that of ``asyncio.wait_for`` does."""
        return self._opener is None or self._opener.done()


class Part(Surroundings):
    """A block whose calls are part of ``unit``: the run of one handler."""

    __slots__ = ("_token", "unit")
    unit: Unit | None

    def __init__(self, unit: Unit | None) -> None:
        super().__init__()
        self.unit = unit

    def enter(self) -> None:
        """Have the calls of the running code be part of the unit, and those of the tasks that it starts."""
        self._token: Token[Surroundings | None] = _surroundings.set(self)

    def leave(self) -> None:
        """End that. Tasks that go on are no longer part of the unit."""
        self.open = False
        _surroundings.reset(self._token)

    async def __aenter__(self) -> Self:
        self.enter()
        return self

    async def __aexit__(self, *raised: object) -> None:
        self.leave()
        await self.close_sessions()

    def join(self, *, alone: bool = False) -> Unit:
        """Return the unit that the calls are part of."""
        assert self.unit is not None  # noqa: S101 - given to the constructor
        return self.unit

    def writes(self) -> Gathers | None:
        """Return what gathers the writes of the unit."""
        return self.join().writes

    def reads(self) -> Gathers | None:
        """Return what gathers the reads of the unit."""
        return self.join().reads

    def writing(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a block for one statement of the unit."""
        return self.join().statement()

    def reading(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a block for one statement of the unit."""
        return self.join().statement()

    def block(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a block of the unit."""
        return self.join(alone=True).block()

    async def hold_connection(self) -> Any:
        """Return the connection of the unit."""
        unit = self.join(alone=True)
        await unit.lock.acquire()
        try:
            return await (await unit.opened()).connection()
        except BaseException:
            unit.lock.release()
            raise

    async def session_closed(self, *, committed: bool) -> None:
        """Let the other handlers use the connection."""
        unit = self.join()
        try:
            await unit.session_closed(committed=committed)
        finally:
            unit.lock.release()


_surroundings: ContextVar[Surroundings | None] = ContextVar("routemq_transaction", default=None)


def _surrounding() -> Surroundings | None:
    found = _surroundings.get()
    while found is not None:
        if not found.open or (isinstance(found, InSession) and not found.session.is_open):
            # A task may outlive the transaction in which it was started. Its calls are no part of that from then on.
            found = found.outer
        elif (inner := found.inner) is not None and inner.session.is_open and inner.is_left():
            found = inner
        else:
            break
    return found


def _session_on(connection: Any) -> SavepointSession:
    made = SavepointSession(
        bind=connection,
        join_transaction_mode="create_savepoint",
        expire_on_commit=False,
        # When it is closed, others use the connection.
        close_resets_only=False,
    )
    _note_commits(made)
    return made


def _note_commits(session: CallersSession) -> None:
    @event.listens_for(session.sync_session, "after_commit")
    def committed(_: object) -> None:
        session.has_committed = True


def is_surrounded() -> bool:
    """Return whether the running code is within a transaction, which commits what the code writes."""
    return _surrounding() is not None


def may_be_undone() -> bool:
    """Return whether the running code is a handler's that has written, so that it runs again if others are rolled back."""
    outer = _surrounding()
    while outer is not None and not isinstance(outer, Part):
        outer = outer.outer
    return outer is not None and outer.unit is not None


def writes() -> Gathers | None:
    """Return what gathers the writes of the running code. Return None if each of its calls is a statement by itself."""
    outer = _surrounding()
    if outer is None:
        database = configured()
        return database.writes if database.gathers else None
    return outer.writes()


def reads() -> Gathers | None:
    """Return what gathers the reads of the running code. Return None if each of its calls is a statement by itself."""
    outer = _surrounding()
    if outer is None:
        return shared_reads()
    return outer.reads()


def shared_reads() -> Gather | None:
    """Return what gathers the reads of all code outside of transactions. Return None on a database without gathers."""
    database = configured()
    return database.reads if database.gathers else None


async def get_session() -> AsyncSession:
    """Return a new session, which the caller commits and closes. Within a transaction it is on the same connection."""
    outer = _surrounding()
    if outer is not None:
        return await outer.open_session()
    made = CallersSession(configured().engine, expire_on_commit=False)
    _note_commits(made)
    return made


@asynccontextmanager
async def transaction() -> AsyncIterator[AsyncSession]:
    """Open a transaction that the block's calls join, in this task and in those that it starts. Yield its session.

    It commits at the end of the block, and rolls back if the block raises. Within another transaction it is a savepoint.
    """
    outer = _surrounding()
    try:
        async with configured().writing() if outer is None else outer.block() as session, _surround(session):
            yield session
    except BatchError as error:
        # Otherwise those that it does not blame would count as done.
        error.undone = True
        raise


@asynccontextmanager
async def _surround(session: AsyncSession) -> AsyncIterator[None]:
    inner = Block(session, _surrounding())
    token = _surroundings.set(inner)
    try:
        yield
    finally:
        await inner.close_sessions()
        await inner.end()
        _surroundings.reset(token)


@asynccontextmanager
async def writing() -> AsyncIterator[AsyncSession]:
    """Yield a session for one call that writes: that of the surrounding transaction, or one in a transaction of its own.

    Within a transaction the call is a savepoint. So an error that the caller catches does not undo the other calls.
    """
    outer = _surrounding()
    if outer is None:
        async with configured().writing() as session:
            yield session
    else:
        async with outer.writing() as session:
            yield session


@asynccontextmanager
async def reading() -> AsyncIterator[AsyncSession]:
    """Yield a session for one call that reads: that of the surrounding transaction, or one of its own."""
    outer = _surrounding()
    if outer is None:
        async with configured().reading() as session:
            yield session
    else:
        async with outer.reading() as session:
            yield session
