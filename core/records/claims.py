"""Which process does which run of periodic work: a row for each piece of work, in the table ``routemq_periodic``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, update
from sqlalchemy.exc import IntegrityError

from core.records.tables import periodic

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncConnection


class ClaimTable:
    """See ``core.periodic.Claims``; ``begin`` opens a transaction that commits at its end.

    A run belongs to the process that first writes its number. Clocks of different machines may differ by less than the
    period; the end of a run that was killed is waited for.
    """

    def __init__(self, begin: Callable[[], AbstractAsyncContextManager[AsyncConnection]]) -> None:
        self._begin = begin

    async def take(self, name: str, slot: int, now: float, until: float) -> bool:
        """Say whether the run number ``slot`` of ``name`` is this process's to do, from ``now`` to ``until`` at most."""
        free = update(periodic).where(periodic.c.name == name, periodic.c.slot < slot, periodic.c.busy_until <= now)
        async with self._begin() as connection:
            if (await connection.execute(free.values(slot=slot, busy_until=until))).rowcount:
                return True
        try:
            async with self._begin() as connection:
                await connection.execute(insert(periodic).values(name=name, slot=slot, busy_until=until))
        except IntegrityError:
            return False
        return True

    async def release(self, name: str, slot: int) -> None:
        """Take note that the run is over."""
        own = (periodic.c.name == name, periodic.c.slot == slot)
        async with self._begin() as connection:
            await connection.execute(update(periodic).where(*own).values(busy_until=0))
