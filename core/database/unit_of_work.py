"""A unit of work: one transaction that many handlers share. What they write is committed together, or not at all."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from core.database.statements.gather import Gather

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncSession

MAX_CUT = 3.0
"""Seconds that whoever uses the connection of a unit has to leave it, once the unit is cut off."""


class Unit(ABC):
    """A transaction that handlers share. One statement at a time may use its connection, under ``lock``.

    The calls of all handlers that wait at the same moment are gathered, by ``writes`` and by ``reads``. Instances are
    detached from the session at once, so that what a handler changes on them is not written.
    """

    lock: asyncio.Lock
    writes: Gather
    reads: Gather

    @abstractmethod
    def statement(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a block for one statement, or for one gather. Yield the session."""

    @abstractmethod
    def block(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a block whose statements hold together or not at all. Yield the session."""

    @abstractmethod
    async def opened(self) -> AsyncSession:
        """Return the session. The caller holds ``lock``."""

    @abstractmethod
    async def session_closed(self, *, committed: bool) -> None:
        """Record that a handler closed its session, and whether it committed something. The caller still holds ``lock``."""

    async def end(self) -> None:
        """Wait until no gathered call is under way on the connection."""
        await self.writes.idle()
        await self.reads.idle()

    async def cut(self) -> None:
        """Cancel the gathered calls. Return when nobody uses the connection any more, or after three seconds.

        Only then can the transaction be rolled back: two tasks must not use a connection at once.
        """
        self.writes.cut()
        self.reads.cut()
        await uninterrupted(self._unused())

    async def _unused(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(MAX_CUT):
                await self.end()
                await self.lock.acquire()
                self.lock.release()


async def uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work``, which is short, to its end. Where the running task is cancelled meanwhile, raise that afterwards."""
    task = asyncio.get_running_loop().create_task(work)
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        raise cancellation
    task.result()


class UnitOfWork(Unit):
    """The transaction of ``session``, which whoever made it commits.

    - ``savepoints``: whether each gather is within a savepoint. Then an error that a handler catches does not undo the
      rest. Without savepoints, which is cheaper, such an error spoils the transaction.
    - ``spoilt``: whether a statement failed without a savepoint.
    """

    def __init__(self, session: AsyncSession, *, savepoints: bool) -> None:
        self.session = session
        self.spoilt = False
        self._savepoints = savepoints
        self.lock = asyncio.Lock()
        self.writes = Gather(self.statement)
        self.reads = Gather(self.statement)

    @asynccontextmanager
    async def ending(self) -> AsyncIterator[None]:
        """End the calls of the unit with the block: wait for them, or give them up if the block raises."""
        try:
            yield
            await self.end()
        except BaseException:
            await self.cut()
            raise

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncSession]:
        """Yield the session for one statement, or for one gather."""
        async with self.lock:
            if self._savepoints:
                async with self.session.begin_nested():
                    yield self.session
            else:
                try:
                    yield self.session
                    await self.session.flush()
                except BaseException:
                    self.spoilt = True
                    raise
            self.session.expunge_all()

    @asynccontextmanager
    async def block(self) -> AsyncIterator[AsyncSession]:
        """Yield the session within a savepoint."""
        async with self.lock, self.session.begin_nested():
            yield self.session

    async def opened(self) -> AsyncSession:
        """Return the session."""
        return self.session

    async def session_closed(self, *, committed: bool) -> None:
        """Do nothing, because whoever made the transaction ends it."""
