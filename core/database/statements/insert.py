"""INSERT ... RETURNING for a model."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, insert, inspect

from core.database.mapping import key_names
from core.database.statements.array_insert import ArrayInsert, array_insert
from core.database.statements.gather import MAX_KEY_SETS, Kind

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence
    from types import EllipsisType

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Mapper
    from sqlalchemy.sql.dml import ReturningInsert


class Insert(Kind):
    """INSERT ... RETURNING into ``model`` of rows that have values for the same columns."""

    __slots__ = ("_arrays", "_by_number", "_hash", "_statement", "_unsorted", "keys", "model")
    mingles = True

    def __init__(self, model: type[Any], keys: tuple[str, ...]) -> None:
        self.model = model
        self.keys = keys
        self._hash = hash((model, keys))
        self._arrays: ArrayInsert | EllipsisType | None = ...
        # SQLite would be sent one row at a time to keep the order; it numbers rows in the order that they came in.
        self._by_number = _numbers_rows(model) and not set(keys) & set(key_names(inspect(model)))
        self._statement: ReturningInsert[Any] = insert(model).returning(model, sort_by_parameter_order=True)
        self._unsorted: ReturningInsert[Any] = insert(model).returning(model)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Insert) and other.model is self.model and other.keys == self.keys

    def apart(self, value: Any) -> Hashable:
        """Have rows of any values together."""
        return None

    async def run(self, session: AsyncSession, values: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
        """Insert the rows, and give them as instances with what the server made of them."""
        dialect = session.get_bind().dialect
        if dialect.name == "postgresql":
            if self._arrays is ...:
                self._arrays = array_insert(self.model, self.keys, dialect)
            rows = await self._arrays.run(session, values) if self._arrays is not None else None
            if rows is not None:
                return rows
        if self._by_number and dialect.name == "sqlite":
            rows = (await session.scalars(self._unsorted, list(values))).all()
            return sorted(rows, key=_number)
        return (await session.scalars(self._statement, list(values))).all()


def _numbers_rows(model: type[Any]) -> bool:
    """Say whether SQLite makes the primary key of ``model``: one column, INTEGER, without a default of its own."""
    mapper: Mapper[Any] = inspect(model)
    if len(mapper.primary_key) != 1:
        return False
    (column,) = mapper.primary_key
    return isinstance(column.type, Integer) and column.default is None and not column.foreign_keys


def _number(row: Any) -> int:
    (number,) = inspect(row).identity
    return int(number)


@lru_cache(MAX_KEY_SETS)
def insert_of(model: Any, keys: tuple[str, ...]) -> Insert:
    """Give the kind, the same one each time."""
    return Insert(model, keys)
