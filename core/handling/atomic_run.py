"""The run of a handler whose writes hold together: they are kept if it returned, and undone if it raised."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from core.database.current import configured
from core.database.transaction import Part, shared_reads

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncSession

    from core.database.rounds import Round, UndoneError
    from core.database.statements.gather import Statement
    from core.database.transaction import Gathers


class AtomicRun(Part):
    """The run of a handler whose writes hold together. It joins a round with its first write.

    - ``route``: the name of its route.
    - ``alone``: whether it has a transaction of its own.
    - ``cohort``: the round in which its writes were undone before. It then shares a round with others of that one only, so
      that no newcomer's failure undoes them once more.
    """

    __slots__ = ("_calls", "_forgiven", "_last", "_wrote", "alone", "cohort", "route")
    unit: Round | None

    def __init__(self, route: str, *, alone: bool, cohort: Round | None = None) -> None:
        super().__init__(None)
        self.route = route
        self.alone = alone
        self.cohort = cohort
        self._wrote = False
        self._calls = 0
        self._forgiven = 0.0
        self._last: asyncio.Future[Any] | None = None

    def join(self, *, alone: bool = False) -> Round:
        """Return the round, which is chosen with the first write. ``alone`` asks for a transaction of its own."""
        if self.unit is None:
            self.alone = self.alone or alone
            self.unit = configured().rounds().join(self.route, alone=self.alone, cohort=self.cohort)
        return self.unit

    def writes(self) -> Gathers | None:
        """Return the run itself, which counts its calls."""
        self.join()
        return self if configured().gathers else None

    def call(self, statement: Statement, value: Any, /) -> asyncio.Future[Any]:
        """Have the round carry out ``value`` by ``statement``."""
        self._calls += 1
        self._last = result = self.join().writes.call(statement, value)
        return result

    def reads(self) -> Gathers | None:
        """Return what gathers reads. A run that has not written reads outside of transactions."""
        return shared_reads() if self.unit is None else self.unit.reads

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """Yield the session for one statement of the round."""
        async with self.join().statement() as session:
            yield session
        self._wrote = True

    def reading(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a block for a read. A run that has not written reads outside of transactions."""
        return configured().reading() if self.unit is None else self.unit.statement()

    @asynccontextmanager
    async def block(self) -> AsyncIterator[AsyncSession]:
        """Yield the session for a block of the round, which is the run's own unless the run shares one already."""
        async with self.join(alone=True).block() as session:
            yield session
        self._wrote = True

    async def session_closed(self, *, committed: bool) -> None:
        """Let the other handlers use the connection."""
        self._wrote = self._wrote or committed
        await super().session_closed(committed=committed)

    @property
    def has_written(self) -> bool:
        """Whether the round may hold something of this run. A single call that failed left nothing."""
        if self._wrote or self._calls != 1 or self._last is None:
            return self._wrote or self._calls > 0
        last = self._last
        return not last.done() or last.cancelled() or last.exception() is None

    def is_to_have_more_time(self, timeout: float) -> bool:
        """Return whether the run, whose ``timeout`` is over, spent it on waiting for its transaction to begin."""
        round_ = self.unit
        if round_ is None or (not round_.is_waiting and round_.waited - self._forgiven < timeout / 10):
            return False
        self._forgiven = round_.waited
        return True

    async def end(self, error: BaseException | None) -> BaseException | None:
        """Wait until the round has ended. Return what came of the run: None, what it raised, or UndoneError."""
        if self.unit is None:
            return error
        await self.close_sessions()
        return await self.unit.leave(self.route, error, has_written=self.has_written)

    async def cut_off(self, error: BaseException) -> None:
        """Undo the run, whose task was cancelled with ``error``. Do not wait for the others in its round."""
        if self.unit is not None:
            await self.close_sessions()
            await self.unit.leave(self.route, error, has_written=self.has_written, wait=False)

    def again(self, undone: UndoneError) -> AtomicRun:
        """Return the next run in the place of this one."""
        return AtomicRun(self.route, alone=self.alone or undone.alone, cohort=self.unit)
