"""One transaction that many handlers share: what they write is committed together, or not at all."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncSession

from core.database.gather import Gather

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

    Calls of all handlers that wait together go out together, each gather within a savepoint, so that an error which a
    handler catches leaves the rest standing. Instances are detached at once: what a handler changes on them is its own.
    """

    def __init__(self, session: AsyncSession) -> None:
        self.session = session
        self.lock = asyncio.Lock()
        self.writes = Gather(self.writing)
        self.reads = Gather(self.reading)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """Give the session within a savepoint."""
        async with self.lock, self.session.begin_nested():
            yield self.session
            self.session.expunge_all()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """Give the session."""
        async with self.lock:
            yield self.session
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
