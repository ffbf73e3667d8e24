"""Dead letters, and messages that wait for their routes, in their tables."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import delete, func, insert, select

from core.database.fault import AWAY, fault_of
from core.database.statements.conflict import conflict_insert
from core.database.unit_of_work import MAX_CUT, uninterrupted
from core.records.dead_letters import MAX_BYTES, Also, Bounds, DeadLetter, Stored
from core.records.tables import dead_letters

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Select, Table
    from sqlalchemy.ext.asyncio import AsyncConnection


MAX_TOGETHER = 200
"""Dead letters that are stored in one transaction."""


class _Addition(NamedTuple):
    """A dead letter that is to be stored, what else is written with it, and who waits for that."""

    letter: DeadLetter
    also: Also | None
    stored: asyncio.Future[None]


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task], timeout=MAX_CUT)


class DeadLetterTable:
    """Dead letters in the table ``routemq_dead_letters``, or messages in a table of the same columns.

    - ``begin``: opens a transaction that commits at its end.
    - ``most``: how many may be stored, about. Then DeadLettersFullError is raised, and nothing is deleted.
    - ``size``: how many bytes of bodies may be stored, about. By default 1 GiB.
    - ``table``: the table.
    - ``client_id``: the client identifier of those that are meant. None, the default, means all.
    """

    def __init__(
        self,
        begin: Callable[[], AbstractAsyncContextManager[AsyncConnection]],
        most: int,
        size: int = MAX_BYTES,
        *,
        table: Table = dead_letters,
        client_id: str | None = None,
    ) -> None:
        self._begin = begin
        self._bounds = Bounds(most, size)
        self._table = table
        self._mine = () if client_id is None else (table.c.client_id == client_id,)
        self._count_every = max(most // 100, 1)
        self._added = 0
        self._waiting: deque[_Addition] = deque()
        self._task: asyncio.Task[None] | None = None
        # How many callers wait.
        self._wanted = 0
        # What is stored, as far as this process knows: others add and remove too.
        self._messages = 0
        self._size = 0

    async def add(self, dead_letter: DeadLetter, also: Also | None = None) -> None:
        """Store ``dead_letter`` and commit. ``also`` writes something more in the same transaction.

        Those that wait at the same moment are stored in one transaction, or each in its own where that fails. A dead letter
        of the same message stays alone: it was committed before, and the answer to that got lost. Raise
        DeadLettersFullError where no more may be stored.
        """
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Addition(dead_letter, also, stored))
        if self._task is None:
            self._task = asyncio.create_task(self._store_waiting(), name="store dead letters")
        self._wanted += 1
        try:
            await stored
        except asyncio.CancelledError:
            if self._wanted == 1 and self._task is not None:
                # Nobody waits any more, so that no transaction is left behind.
                self._task.cancel()
                await uninterrupted(_ended(self._task))
            raise
        finally:
            self._wanted -= 1

    async def _store_waiting(self) -> None:
        try:
            while self._waiting:
                taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_TOGETHER))]
                await self._store([each for each in taken if not each.stored.done()])
        finally:
            self._task = None

    async def _store(self, additions: Sequence[_Addition]) -> None:
        try:
            await self._store_together(additions)
        except Exception as error:  # noqa: BLE001 - who waits gets it
            if len(additions) == 1 or fault_of(error) in AWAY:
                for each in additions:
                    if not each.stored.done():
                        each.stored.set_exception(error)
                return
            for each in additions:
                await self._store([each])
        else:
            for each in additions:
                if not each.stored.done():
                    each.stored.set_result(None)

    async def _store_together(self, additions: Sequence[_Addition]) -> None:
        if not additions:
            return
        added, size = 0, 0
        async with self._begin() as connection:
            statement = _insert(connection, self._table)
            for letter, also, _ in additions:
                # First of all, since its unique index waits for a commit that may still be under way.
                if (await connection.execute(statement, asdict(letter))).rowcount == 0:
                    continue
                added += 1
                size += len(letter.body)
                if also is not None:
                    await also(connection)
            await self._check(connection, added, size)
        self._added += added
        self._messages += added
        self._size += size

    async def _check(self, connection: AsyncConnection, added: int, size: int) -> None:
        """Raise DeadLettersFullError where ``added`` messages with ``size`` bytes, inserted already, are too many."""
        bounds, before = self._bounds, self._added
        messages, total = self._messages + added - 1, self._size
        counted_lately = before and before // self._count_every == (before + added) // self._count_every
        if counted_lately and messages < bounds.messages and total < bounds.size:
            return
        of = self._table.c
        stored = select(func.count(), func.coalesce(func.sum(func.length(of.body)), 0)).where(*self._mine)
        counted, summed = (await connection.execute(stored)).one()
        self._messages, self._size = counted - added, int(summed) - size
        if added:
            bounds.check(counted - 1, self._size)

    async def count(self) -> int:
        """Return the number of dead letters."""
        counted = select(func.count()).select_from(self._table).where(*self._mine)
        async with self._begin() as connection:
            return int((await connection.execute(counted)).scalar_one())

    async def routes(self) -> dict[str, int]:
        """Return how many there are of each route, by its name."""
        route = self._table.c.route
        counted = select(route, func.count()).where(route.is_not(None), *self._mine).group_by(route).order_by(route)
        async with self._begin() as connection:
            return {name: int(number) for name, number in await connection.execute(counted)}

    async def last(self) -> int:
        """Return the highest number of a dead letter. Return 0 where there are none."""
        async with self._begin() as connection:
            return int((await connection.execute(select(func.max(self._table.c.id)))).scalar_one() or 0)

    async def read(self, *, after: int = 0, most: int = 100, route: str | None = None) -> list[Stored]:
        """Return at most ``most`` dead letters with numbers above ``after``, the oldest first."""
        wanted = select(self._table).where(self._table.c.id > after).order_by(self._table.c.id).limit(most)
        return await self._read(wanted, route)

    async def latest(self, *, most: int, route: str | None = None) -> list[Stored]:
        """Return the latest ``most`` dead letters, the oldest of them first."""
        return (await self._read(select(self._table).order_by(self._table.c.id.desc()).limit(most), route))[::-1]

    async def _read(self, wanted: Select[Any], route: str | None) -> list[Stored]:
        wanted = wanted.where(*self._mine)
        if route is not None:
            wanted = wanted.where(self._table.c.route == route)
        async with self._begin() as connection:
            return [_stored(row._mapping) for row in await connection.execute(wanted)]  # noqa: SLF001 - its public name

    async def get(self, number: int) -> Stored | None:
        """Return the dead letter with this number, or None."""
        found = await self.read(after=number - 1, most=1)
        return found[0] if found and found[0].id == number else None

    async def remove(self, numbers: Collection[int]) -> int:
        """Remove the dead letters with these numbers. Return how many there were."""
        async with self._begin() as connection:
            return await self.remove_within(connection, numbers)

    async def remove_within(self, connection: AsyncConnection, numbers: Collection[int]) -> int:
        """Remove the dead letters with these numbers in the transaction of ``connection``. Return how many there were."""
        gone = delete(self._table).where(self._table.c.id.in_(list(numbers)))
        return (await connection.execute(gone)).rowcount


def _insert(connection: AsyncConnection, table: Table) -> Any:
    """Return the statement that inserts a message, unless it is there already."""
    own = conflict_insert(connection.dialect.name, table)
    return insert(table) if own is None else own.on_conflict_do_nothing(index_elements=["message_id"])


def _stored(row: Any) -> Stored:
    values = dict(row)
    number = values.pop("id")
    for name in ("first_at", "last_at"):
        if values[name].tzinfo is None:
            # SQLite keeps no time zone.
            values[name] = values[name].replace(tzinfo=UTC)
    return Stored(number, DeadLetter(**values))
