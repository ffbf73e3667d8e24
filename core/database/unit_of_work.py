"""One transaction that many handlers share: what they write is committed together, or not at all."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncSession

from core.database.statements.gather import Gather

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class SavepointSession(AsyncSession):
    """A session on the unit's connection: its ``commit()`` releases a savepoint, the real commit is the unit's.

    While it is open the other handlers wait for the connection.
    """

    unit: UnitOfWork
    open_ = True

    async def close(self) -> None:
        """Roll back what was not committed, and let the others on."""
        try:
            await super().close()
        finally:
            if self.open_:
                self.open_ = False
                self.unit.lock.release()


class UnitOfWork:
    """The transaction of ``session``, whose connection one statement at a time may use.

    Calls of all handlers that wait together go out together. With ``savepoints`` each gather is within one, so that an
    error which a handler catches leaves the rest standing; without them, which is cheaper, such an error spoils the whole:
    ``spoilt`` says so. Instances are detached at once: what a handler changes on them is its own.
    """

    def __init__(self, session: AsyncSession, *, savepoints: bool) -> None:
        self.session = session
        self.spoilt = False
        self._savepoints = savepoints
        self.lock = asyncio.Lock()
        self.writes = Gather(self.statement)
        self.reads = Gather(self.statement)

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncSession]:
        """Give the session for one statement, or one gather."""
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

    async def open_session(self) -> SavepointSession:
        """Give a session of a handler's own, which the handler commits and closes."""
        await self.lock.acquire()
        try:
            connection: Any = await self.session.connection()
            made = SavepointSession(bind=connection, join_transaction_mode="create_savepoint", expire_on_commit=False)
        except BaseException:
            self.lock.release()
            raise
        made.unit = self
        return made

    async def end(self) -> None:
        """Wait until nothing is under way on the connection."""
        await self.writes.idle()
        await self.reads.idle()
