"""The transactions of handlers' runs: what a run wrote is kept if its handler returned, and undone if it raised."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from core.database.fault import AWAY, Fault, fault_of
from core.database.statements.gather import Gather
from core.database.unit_of_work import Unit, uninterrupted
from core.errors import DatabaseUnreachableError, HandlerTimeoutError, MessageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncSession

HELD = 0.1
"""Seconds for which a round waits for the one before it."""
SLOW = 0.05
"""Seconds for which a run that wrote may go on after its last call, and after the others. Beyond that its route is slow."""
QUICK_RUNS = 1000
"""Quick runs in a row after which a route is no longer slow."""
MAX_ROUNDS = 4
"""Rounds at a time."""


class UndoneError(Exception):
    """What a run wrote was undone, although the run is not to blame. It has to run again.

    ``alone`` says that it has to have a transaction of its own.
    """

    def __init__(self, *, alone: bool = False) -> None:
        super().__init__("another run in the same transaction failed")
        self.alone = alone


class Round(Unit):
    """A transaction that is opened with its first write, and committed when all runs that joined it have ended.

    It is rolled back if a run that wrote has failed. The others run again. A statement that fails undoes nothing else: the
    first one takes the whole transaction with it, which holds nothing more, and those after it are within savepoints.

    - ``of``: decides when the round begins.
    - ``shared``: whether several runs may join it.
    - ``cohort``: the round in which the writes of all its runs were undone before. None for runs that are new.
    - ``before``: the round that this one waits for.
    - ``is_waiting``: whether it waits for others to end, so that it may begin.
    - ``waited``: the seconds for which it did.
    """

    def __init__(self, of: Rounds, *, shared: bool, cohort: Round | None = None, before: Round | None = None) -> None:
        self.lock = asyncio.Lock()
        self.writes = Gather(self.statement, self._turn)
        self.reads = Gather(self.statement, self._turn)
        self.shared = shared
        self.cohort = cohort
        self.before = before
        self.follower: asyncio.Future[None] | None = None
        self.begun = self.over = self.is_waiting = False
        self.waited = 0.0
        self._of = of
        self._joined = self._left = 0
        self._ended: list[asyncio.Future[Exception | None]] = []
        self._transaction: AbstractAsyncContextManager[AsyncSession] | None = None
        self._session: AsyncSession | None = None
        self._clean = True
        self._failed = False
        self._broken: Exception | None = None
        self._active_at = monotonic()

    def join(self) -> None:
        """Count a run that joins."""
        self._joined += 1

    # -- statements ----------------------------------------------------------------------------------------------------

    async def _turn(self) -> None:
        if not self.begun:
            async with self.lock:
                await self._begin()

    async def _begin(self) -> None:
        if not self.begun:
            with self._wait():
                await self._of.admit(self)
            self.begun = True

    @contextmanager
    def _wait(self) -> Iterator[None]:
        self.is_waiting, since = True, monotonic()
        try:
            yield
        finally:
            self.is_waiting = False
            self.waited += monotonic() - since

    async def opened(self) -> AsyncSession:
        """Return the session of the transaction, which is opened where it is not yet. The caller holds ``lock``."""
        if self._broken is not None:
            raise self._broken
        if self.over:
            raise UndoneError
        if self._session is None:
            await self._begin()
            transaction = self._of.begin()
            with self._wait():
                self._session = await transaction.__aenter__()
            self._transaction = transaction
        return self._session

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncSession]:
        """Yield the session for one statement, or for one gather."""
        async with self.lock:
            session = await self.opened()
            try:
                if self._clean:
                    yield session
                    await session.flush()
                else:
                    async with session.begin_nested():
                        yield session
            except BaseException as error:
                await self._statement_failed(session, error)
                raise
            self._clean = False
            session.expunge_all()
            self._active_at = monotonic()

    block = statement

    async def _statement_failed(self, session: AsyncSession, error: BaseException) -> None:
        self._active_at = monotonic()
        if self._clean:
            await self._close(error)
        elif await _is_lost(session):
            if isinstance(error, DBAPIError) and fault_of(error) in AWAY:
                self._broken = error
            elif self._joined > 1:
                self._broken = UndoneError()
            else:
                self._broken = DatabaseUnreachableError("the connection was lost in the middle of a transaction")

    async def session_closed(self, *, committed: bool) -> None:
        """Close the transaction if nothing was written, so that a handler that only reads in sessions holds nothing."""
        self._active_at = monotonic()
        if committed:
            self._clean = False
        elif self._clean:
            await self._close(UndoneError())
            if not self.shared:
                self._of.release(self)

    # -- the end -------------------------------------------------------------------------------------------------------

    async def leave(
        self, route: str, error: BaseException | None, *, has_written: bool, wait: bool = True
    ) -> BaseException | None:
        """Record that a run of ``route`` raised ``error``, or returned. Return what came of it once the round has ended.

        - ``has_written``: whether the round may hold something of the run. Without that, it does not wait for the end.
        - ``wait``: whether it waits for the end.
        """
        found = error
        if error is not None:
            if self._broken is not None and not isinstance(error, HandlerTimeoutError | MessageError):
                # It may only follow from the loss of the connection. Otherwise it shows itself again.
                found = self._broken
            elif isinstance(error, HandlerTimeoutError) and self._joined > 1:
                # It may have waited for another run of this round, which waited for the commit.
                self._of.ran(route, slow=True)
                found = UndoneError(alone=True)
            self._failed = self._failed or has_written
        self._left += 1
        now = monotonic()
        if self._left == self._joined:
            self._of.ran(route, slow=has_written and now - self._active_at > SLOW)
            if not wait:
                # Its task was cancelled: it waits for no statement any more.
                await self.cut()
            outcome = await self._finish()
        elif wait and has_written:
            self._active_at = now
            ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
            self._ended.append(ended)
            outcome = await ended
        else:
            outcome = None
        return outcome if found is None else found

    async def _finish(self) -> Exception | None:
        """Commit or roll back. Return None if what the runs wrote is committed, or why it is not."""
        outcome: Exception | None = UndoneError()
        try:
            self._of.close(self)
            await self.end()
            async with self.lock:
                outcome = await self._commit()
                self.over = True
        except BaseException as error:
            await uninterrupted(self._give_up(error))
            raise
        finally:
            self.over = True
            for ended in self._ended:
                if not ended.done():
                    ended.set_result(outcome)
            self._of.ended(self)
        return outcome

    async def _commit(self) -> Exception | None:
        if self._failed or self._broken is not None:
            undone = self._broken or UndoneError()
            await self._close(undone)
            return undone
        transaction, self._transaction, self._session = self._transaction, None, None
        if transaction is None:
            return None
        try:
            await transaction.__aexit__(None, None, None)
        except Exception as error:  # noqa: BLE001 - the runs get it
            if self._joined > 1 and fault_of(error) is Fault.MESSAGE:
                # Nothing says whose fault it is. It shows once each has a transaction of its own.
                return UndoneError(alone=True)
            return error
        return None

    async def _give_up(self, error: BaseException) -> None:
        self.over = True
        await self.cut()
        await self._close(error)

    async def _close(self, error: BaseException) -> None:
        """Roll the transaction back."""
        transaction, self._transaction, self._session = self._transaction, None, None
        if transaction is not None:
            with suppress(Exception):
                await transaction.__aexit__(type(error), error, error.__traceback__)


async def _is_lost(session: AsyncSession) -> bool:
    """Return whether the connection of ``session`` cannot be used any more."""
    try:
        return bool((await session.connection()).invalidated)
    except Exception:  # noqa: BLE001 - not even the savepoint could be rolled back
        return True


class Rounds:
    """The rounds of one event loop.

    A round takes the runs that want to write while the one before it is under way. So rounds grow with the load, a single
    run does not wait, and there is no timer. The next round does not wait for a run that goes on after it wrote. Such a run
    holds what the others in its round wrote, so that its route has transactions of its own until it is quick again.

    - ``begin``: opens a transaction.
    - ``most``: how many transactions there may be at a time beside the rounds.
    """

    def __init__(self, begin: Callable[[], AbstractAsyncContextManager[AsyncSession]], most: int) -> None:
        self.begin = begin
        self._shared = asyncio.Semaphore(min(MAX_ROUNDS, most))
        self._alone = asyncio.Semaphore(most)
        self._last: Round | None = None
        self._gathering: dict[Round | None, Round] = {}
        self._slow: dict[str, int] = {}

    def join(self, route: str, *, alone: bool, cohort: Round | None) -> Round:
        """Return the round that a run of ``route`` is part of.

        - ``alone``: whether it is to have a transaction of its own.
        - ``cohort``: the round in which its writes were undone before. None for a run that is new.
        """
        if alone or route in self._slow:
            found = Round(self, shared=False)
        else:
            gathering = self._gathering.get(cohort)
            if gathering is None:
                gathering = Round(self, shared=True, cohort=cohort, before=self._last)
                self._last = self._gathering[cohort] = gathering
            found = gathering
        found.join()
        return found

    async def admit(self, round_: Round) -> None:
        """Wait until ``round_`` may begin. No more runs may join it then."""
        if not round_.shared:
            await self._alone.acquire()
            return
        before, round_.before = round_.before, None
        if before is not None and not before.over:
            loop = asyncio.get_running_loop()
            before.follower = over = loop.create_future()
            timer = loop.call_later(HELD, _wake, over)
            try:
                await over
            finally:
                timer.cancel()
        await self._shared.acquire()
        self.close(round_)

    def close(self, round_: Round) -> None:
        """Let no more runs join ``round_``."""
        if self._gathering.get(round_.cohort) is round_:
            del self._gathering[round_.cohort]

    def release(self, round_: Round) -> None:
        """Let another transaction begin in the place of ``round_``, which holds none."""
        if round_.begun:
            round_.begun = False
            (self._shared if round_.shared else self._alone).release()

    def ended(self, round_: Round) -> None:
        """Record that ``round_`` has ended."""
        self.release(round_)
        if self._last is round_:
            self._last = None
        if round_.follower is not None:
            _wake(round_.follower)

    def ran(self, route: str, *, slow: bool) -> None:
        """Record whether a run of ``route`` was slow, which held its transaction for long after its last write."""
        if slow:
            self._slow[route] = 0
        elif route in self._slow:
            self._slow[route] += 1
            if self._slow[route] >= QUICK_RUNS:
                del self._slow[route]


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
