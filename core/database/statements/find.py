"""SELECT of rows by primary key, for many callers at once."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect, select, tuple_

from core.database.mapping import key_tuple
from core.database.statements.gather import MAX_STATEMENTS, KeyedStatement

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Mapper


class Find(KeyedStatement):
    """SELECT ... WHERE primary key IN (...). The value of a call is the primary key."""

    __slots__ = ("_columns", "model")

    def __init__(self, model: type[Any]) -> None:
        self.model = model
        mapper: Mapper[Any] = inspect(model)
        self._columns = mapper.primary_key

    def __hash__(self) -> int:
        return hash(self.model)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Find) and other.model is self.model

    def key(self, value: Any) -> Hashable:
        """Return the primary key, since two callers must not share an instance of a row."""
        return value  # type: ignore[no-any-return]

    def order(self, values: Sequence[Any]) -> Sequence[int]:
        """Return the order of the calls, since a SELECT locks no rows."""
        return range(len(values))

    def selection(self, keys: Sequence[tuple[Any, ...]]) -> Select[Any]:
        """Return the SELECT of the rows with the primary keys ``keys``."""
        columns = self._columns
        if len(columns) == 1:
            return select(self.model).where(columns[0].in_([key for (key,) in keys]))
        return select(self.model).where(tuple_(*columns).in_(keys))

    async def run(self, session: AsyncSession, values: Sequence[Any]) -> Sequence[Any]:
        """Return an instance for each primary key, or None if there is no such row."""
        if len(values) == 1:
            found_one: Any = await session.get(self.model, values[0])
            return [found_one]
        columns = self._columns
        mapper: Mapper[Any] = inspect(self.model)
        found = {}
        for row in (await session.scalars(self.selection([key_tuple(value) for value in values]))).unique():
            key = mapper.primary_key_from_instance(row)
            found[key[0] if len(columns) == 1 else tuple(key)] = row
        rows = [found.pop(value, None) for value in values]
        if found:
            # Some keys are equal for the database and not for Python, for instance "1" and 1.
            for index, value in enumerate(values):
                if rows[index] is None:
                    rows[index] = await session.get(self.model, value)
        return rows


@lru_cache(MAX_STATEMENTS)
def find_of(model: Any) -> Find:
    """Return the SELECT for ``model``, always the same one."""
    return Find(model)
