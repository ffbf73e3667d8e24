"""A unit of work: one transaction that many handlers share. What they write is committed together, or not at all."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from core.database.statements.gather import Gather

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncSession


class UnitOfWork:
    """The transaction of ``session``, whose connection one statement at a time may use.

    - ``savepoints``: whether each gather is within a savepoint. Then an error that a handler catches does not undo the
      rest. Without savepoints, which is cheaper, such an error spoils the transaction.
    - ``spoilt``: whether a statement failed without a savepoint.

    The calls of all handlers that wait at the same moment are gathered. Instances are detached from the session at once,
    so that what a handler changes on them is not written.
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

    async def end(self) -> None:
        """Wait until no gathered call is under way on the connection."""
        await self.writes.idle()
        await self.reads.idle()
