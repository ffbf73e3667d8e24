"""INSERT of rows that come back as instances."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, insert, inspect
from sqlalchemy.exc import InvalidRequestError

from core.database.mapping import key_names
from core.database.statements.array_insert import ArrayInsert, array_insert
from core.database.statements.gather import MAX_STATEMENTS, Statement
from core.database.statements.stored import check_stored, left_out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import EllipsisType

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Mapper
    from sqlalchemy.sql.dml import ReturningInsert


class Insert(Statement):
    """INSERT ... RETURNING into ``model``. The value of a call is a row: its values by ``names``, the same in all rows."""

    __slots__ = ("_arrays", "_by_number", "_hash", "_sorted", "_unsorted", "model", "names")

    def __init__(self, model: type[Any], names: tuple[str, ...]) -> None:
        self.model = model
        self.names = names
        self._hash = hash((model, names))
        # It needs the dialect, so that it is made by the first run.
        self._arrays: ArrayInsert | EllipsisType | None = ...
        # SQLAlchemy would send SQLite one row at a time to keep their order. Rows that SQLite numbers are sorted afterwards.
        self._by_number = _numbers_rows(model) and not set(names) & set(key_names(inspect(model)))
        self._sorted: ReturningInsert[Any] = insert(model).returning(model, sort_by_parameter_order=True)
        self._unsorted: ReturningInsert[Any] = insert(model).returning(model)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Insert) and other.model is self.model and other.names == self.names

    async def run(self, session: AsyncSession, values: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
        """Insert the rows. Return them as instances, with the values that the server made.

        Raise RowLeftOutError if one of them was not stored.
        """
        dialect = session.get_bind().dialect
        if dialect.name == "postgresql":
            if self._arrays is ...:
                self._arrays = array_insert(self.model, self.names, dialect)
            rows = await self._arrays.run(session, values) if self._arrays is not None else None
            if rows is not None:
                return rows
        if self._by_number and dialect.name == "sqlite":
            rows = sorted((await session.scalars(self._unsorted, list(values))).all(), key=_number)
        else:
            try:
                rows = (await session.scalars(self._sorted, list(values))).all()
            except InvalidRequestError as error:
                # To bring them into order, SQLAlchemy numbers the rows by a "sentinel", and misses one itself.
                if "sentinel" in str(error).lower():
                    raise left_out(self.model, len(values)) from error
                raise
        check_stored(self.model, len(values), len(rows))
        return rows


def _numbers_rows(model: type[Any]) -> bool:
    """Return whether SQLite numbers the rows of ``model``: the primary key is one integer without default or foreign key."""
    mapper: Mapper[Any] = inspect(model)
    if len(mapper.primary_key) != 1:
        return False
    (column,) = mapper.primary_key
    return isinstance(column.type, Integer) and column.default is None and not column.foreign_keys


def _number(row: Any) -> int:
    (number,) = inspect(row).identity
    return int(number)


@lru_cache(MAX_STATEMENTS)
def insert_of(model: Any, names: tuple[str, ...]) -> Insert:
    """Return the INSERT for rows of ``model`` with values for ``names``, always the same one."""
    return Insert(model, names)
