"""UPDATE and DELETE of rows that are found by primary key."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import inspect

from core.database.mapping import sortable_key
from core.database.statements.find import find_of
from core.database.statements.gather import MAX_KEY_SETS, Kind

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession


class _ByKey(Kind):
    """What changes rows of ``model`` that are found by primary key, in its order."""

    __slots__ = ("_find", "model")

    def __init__(self, model: type[Any]) -> None:
        self.model = model
        self._find = find_of(cast("Any", model))

    def __hash__(self) -> int:
        return hash((type(self), self.model))

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and getattr(other, "model", None) is self.model

    @staticmethod
    def _sort(keys: Sequence[Any]) -> list[int]:
        return sorted(range(len(keys)), key=lambda index: sortable_key(keys[index]))


class Update(_ByKey):
    """UPDATE of rows found by primary key; a value is the key with the new values by name."""

    def apart(self, value: Any) -> Hashable:
        """Keep changes of one row apart: they come one after the other."""
        return value[0]  # type: ignore[no-any-return]

    def order(self, values: Sequence[Any]) -> list[int]:
        """Sorted by key: two workers that change the same rows in different orders would deadlock."""
        return self._sort([key for key, _ in values])

    async def run(self, session: AsyncSession, values: Sequence[tuple[Any, Mapping[str, Any]]]) -> Sequence[Any]:
        """Change the rows and give them as instances, None where there is none."""
        rows = await self._find.run(session, [key for key, _ in values])
        for row, (_, changes) in zip(rows, values, strict=True):
            if row is not None:
                for name, value in changes.items():
                    setattr(row, name, value)
        await session.flush()
        there = [row for row in rows if row is not None]
        if len(there) == 1:
            await session.refresh(there[0])
        elif there:
            keys = [inspect(row).identity for row in there]
            await session.execute(self._find.statement(keys), execution_options={"populate_existing": True})
        return rows


class Delete(_ByKey):
    """DELETE of rows found by primary key, with the cascades of their relationships."""

    def apart(self, value: Any) -> Hashable:
        """Keep deletes of one row apart: only the first one finds it."""
        return value  # type: ignore[no-any-return]

    def order(self, values: Sequence[Any]) -> list[int]:
        """Sorted by key, as updates are."""
        return self._sort(values)

    async def run(self, session: AsyncSession, values: Sequence[Any]) -> Sequence[bool]:
        """Delete the rows, and say for each key whether there was one."""
        rows = await self._find.run(session, values)
        for row in rows:
            if row is not None:
                await session.delete(row)
        await session.flush()
        return [row is not None for row in rows]


@lru_cache(MAX_KEY_SETS)
def update_of(model: Any) -> Update:
    """Give the kind, the same one each time."""
    return Update(model)


@lru_cache(MAX_KEY_SETS)
def delete_of(model: Any) -> Delete:
    """Give the kind, the same one each time."""
    return Delete(model)
