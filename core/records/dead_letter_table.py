"""Dead letters, and messages that wait for their routes, in their tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from core.records.dead_letters import MAX_BYTES, Also, Bounds, DeadLetter, Stored
from core.records.tables import dead_letters

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Select, Table
    from sqlalchemy.ext.asyncio import AsyncConnection


_INSERT: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


class _StoredBeforeError(Exception):
    """Leaves the transaction, as the dead letter is stored already."""


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
        # What is stored, as far as this process knows: others add and remove too.
        self._messages = 0
        self._size = 0

    async def add(self, dead_letter: DeadLetter, also: Also | None = None) -> None:
        """Store ``dead_letter`` and commit. ``also`` writes something more in the same transaction.

        A dead letter of the same message stays alone: it was committed before, and the answer to that got lost. Raise
        DeadLettersFullError where no more may be stored.
        """
        try:
            async with self._begin() as connection:
                # First of all, since its unique index waits for a commit that may still be under way.
                inserted = (await connection.execute(_insert(connection, self._table), asdict(dead_letter))).rowcount
                if inserted == 0:
                    raise _StoredBeforeError  # noqa: TRY301 - out of the transaction
                await self._check(connection, len(dead_letter.body))
                if also is not None:
                    await also(connection)
        except _StoredBeforeError:
            return
        self._added += 1
        self._messages += 1
        self._size += len(dead_letter.body)

    async def _check(self, connection: AsyncConnection, size: int) -> None:
        """Raise DeadLettersFullError where a body of ``size`` bytes, which is inserted already, leaves too much stored."""
        bounds = self._bounds
        if self._added % self._count_every and self._messages < bounds.messages and self._size < bounds.size:
            return
        of = self._table.c
        stored = select(func.count(), func.coalesce(func.sum(func.length(of.body)), 0)).where(*self._mine)
        messages, total = (await connection.execute(stored)).one()
        self._messages, self._size = messages - 1, int(total) - size
        bounds.check(self._messages, self._size)

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
    own = _INSERT.get(connection.dialect.name)
    return insert(table) if own is None else own(table).on_conflict_do_nothing(index_elements=["message_id"])


def _stored(row: Any) -> Stored:
    values = dict(row)
    number = values.pop("id")
    for name in ("first_at", "last_at"):
        if values[name].tzinfo is None:
            # SQLite keeps no time zone.
            values[name] = values[name].replace(tzinfo=UTC)
    return Stored(number, DeadLetter(**values))
