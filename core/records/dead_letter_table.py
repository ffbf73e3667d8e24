"""Dead letters in their table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select

from core.database.statements.conflict import conflict_insert
from core.records.dead_letters import Also, DeadLetter, Stored, log
from core.records.tables import dead_letters

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection


class _StoredBeforeError(Exception):
    """Leaves the transaction, as the dead letter is stored already."""


class DeadLetterTable:
    """Dead letters in the table ``routemq_dead_letters``.

    About ``most`` are kept. Now and then the oldest beyond that are deleted, and a warning is logged.

    ``begin`` opens a transaction that commits at its end.
    """

    def __init__(self, begin: Callable[[], AbstractAsyncContextManager[AsyncConnection]], most: int) -> None:
        self._begin = begin
        self._most = most
        self._trim_every = max(most // 100, 1)
        self._added = 0

    async def add(self, dead_letter: DeadLetter, also: Also | None = None) -> None:
        """Store ``dead_letter`` and commit. ``also`` writes something more in the same transaction.

        A dead letter of the same message stays alone: it was committed before, and the answer to that got lost.
        """
        try:
            async with self._begin() as connection:
                # First of all, since its unique index waits for a commit that may still be under way.
                if (await connection.execute(_insert(connection), asdict(dead_letter))).rowcount == 0:
                    raise _StoredBeforeError  # noqa: TRY301 - out of the transaction
                if also is not None:
                    await also(connection)
                if self._added % self._trim_every == 0:
                    await self._trim(connection)
        except _StoredBeforeError:
            return
        self._added += 1

    async def _trim(self, connection: AsyncConnection) -> None:
        oldest = select(dead_letters.c.id).order_by(dead_letters.c.id.desc()).offset(self._most - 1).limit(1)
        gone = await connection.execute(delete(dead_letters).where(dead_letters.c.id < oldest.scalar_subquery()))
        if gone.rowcount:
            log.warning(
                "the oldest %d dead letters were deleted, because there were more than DEAD_LETTER_MAX=%d",
                gone.rowcount,
                self._most,
            )

    async def count(self) -> int:
        """Return the number of dead letters."""
        async with self._begin() as connection:
            return int((await connection.execute(select(func.count()).select_from(dead_letters))).scalar_one())

    async def last(self) -> int:
        """Return the highest number of a dead letter. Return 0 where there are none."""
        async with self._begin() as connection:
            return int((await connection.execute(select(func.max(dead_letters.c.id)))).scalar_one() or 0)

    async def read(self, *, after: int = 0, most: int = 100, route: str | None = None) -> list[Stored]:
        """Return at most ``most`` dead letters with numbers above ``after``, the oldest first."""
        wanted = select(dead_letters).where(dead_letters.c.id > after).order_by(dead_letters.c.id).limit(most)
        return await self._read(wanted, route)

    async def latest(self, *, most: int, route: str | None = None) -> list[Stored]:
        """Return the latest ``most`` dead letters, the oldest of them first."""
        return (await self._read(select(dead_letters).order_by(dead_letters.c.id.desc()).limit(most), route))[::-1]

    async def _read(self, wanted: Select[Any], route: str | None) -> list[Stored]:
        if route is not None:
            wanted = wanted.where(dead_letters.c.route == route)
        async with self._begin() as connection:
            return [_stored(row._mapping) for row in await connection.execute(wanted)]  # noqa: SLF001 - its public name

    async def get(self, number: int) -> Stored | None:
        """Return the dead letter with this number, or None."""
        found = await self.read(after=number - 1, most=1)
        return found[0] if found and found[0].id == number else None

    async def remove(self, numbers: Collection[int]) -> int:
        """Remove the dead letters with these numbers. Return how many there were."""
        async with self._begin() as connection:
            return (await connection.execute(delete(dead_letters).where(dead_letters.c.id.in_(list(numbers))))).rowcount


def _insert(connection: AsyncConnection) -> Any:
    """Return the statement that inserts a dead letter, unless its message has one."""
    own = conflict_insert(connection.dialect.name, dead_letters)
    return insert(dead_letters) if own is None else own.on_conflict_do_nothing(index_elements=["message_id"])


def _stored(row: Any) -> Stored:
    values = dict(row)
    number = values.pop("id")
    for name in ("first_at", "last_at"):
        if values[name].tzinfo is None:
            # SQLite keeps no time zone.
            values[name] = values[name].replace(tzinfo=UTC)
    return Stored(number, DeadLetter(**values))
