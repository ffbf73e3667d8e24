"""UPDATE and DELETE of rows that are found by primary key."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import inspect

from core.database.mapping import sortable_key
from core.database.statements.find import find_of
from core.database.statements.gather import MAX_STATEMENTS, KeyedStatement

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession


class _Change(KeyedStatement):
    """A statement that changes rows of ``model`` found by primary key, in the order of their keys."""

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


class Update(_Change):
    """UPDATE of rows found by primary key. The value of a call is the primary key and the new values by name."""

    def key(self, value: Any) -> Hashable:
        """Return the primary key, since the changes of a row are made one after the other."""
        return value[0]  # type: ignore[no-any-return]

    def order(self, values: Sequence[Any]) -> Sequence[int]:
        """Return the order of the primary keys. Workers that change the same rows in different orders would deadlock."""
        return self._sort([key for key, _ in values])

    async def run(self, session: AsyncSession, values: Sequence[tuple[Any, Mapping[str, Any]]]) -> Sequence[Any]:
        """Change the rows. Return an instance for each primary key, or None if there is no such row."""
        rows = await self._find.run(session, [key for key, _ in values])
        for row, (_, changes) in zip(rows, values, strict=True):
            if row is not None:
                for name, value in changes.items():
                    setattr(row, name, value)
        await session.flush()
        changed = [row for row in rows if row is not None]
        if len(changed) == 1:
            await session.refresh(changed[0])
        elif changed:
            keys = [inspect(row).identity for row in changed]
            await session.execute(self._find.selection(keys), execution_options={"populate_existing": True})
        return rows


class Delete(_Change):
    """DELETE of rows found by primary key, with the cascades of their relationships. The value of a call is the key."""

    def key(self, value: Any) -> Hashable:
        """Return the primary key, since only the first call that deletes a row finds it."""
        return value  # type: ignore[no-any-return]

    def order(self, values: Sequence[Any]) -> Sequence[int]:
        """Return the order of the primary keys, for the reason that ``Update`` has."""
        return self._sort(values)

    async def run(self, session: AsyncSession, values: Sequence[Any]) -> Sequence[bool]:
        """Delete the rows. Return for each primary key whether there was such a row."""
        rows = await self._find.run(session, values)
        for row in rows:
            if row is not None:
                await session.delete(row)
        await session.flush()
        return [row is not None for row in rows]


@lru_cache(MAX_STATEMENTS)
def update_of(model: Any) -> Update:
    """Return the UPDATE for ``model``, always the same one."""
    return Update(model)


@lru_cache(MAX_STATEMENTS)
def delete_of(model: Any) -> Delete:
    """Return the DELETE for ``model``, always the same one."""
    return Delete(model)
