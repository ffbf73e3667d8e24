"""Decides which process does a run of periodic work, by a row for each piece of work in the table ``routemq_periodic``."""

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
    """The claims of periodic work (see ``core.periodic.Claims``).

    A run belongs to the process that first writes its number. The clocks of different machines may differ by less than the
    period. Where a run was killed, the next one waits for the end of its time.

    ``begin`` opens a transaction that commits at its end.
    """

    def __init__(self, begin: Callable[[], AbstractAsyncContextManager[AsyncConnection]]) -> None:
        self._begin = begin

    async def take(self, name: str, slot: int, now: float, until: float) -> bool:
        """Return whether this process is to do the run number ``slot`` of ``name``, from ``now`` to ``until`` at most.

        Times are in seconds since the epoch. Raise what the database raises.
        """
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
        """Record that the run number ``slot`` of ``name`` is over. Raise what the database raises."""
        own = (periodic.c.name == name, periodic.c.slot == slot)
        async with self._begin() as connection:
            await connection.execute(update(periodic).where(*own).values(busy_until=0))
