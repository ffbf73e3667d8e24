"""INSERT of rows, or UPDATE of the rows that are there already."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect

from core.database.mapping import sortable
from core.database.statements.conflict import conflict_insert
from core.database.statements.gather import MAX_STATEMENTS, KeyedStatement
from core.database.statements.stored import left_out
from core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Column
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Mapper
    from sqlalchemy.sql.dml import ReturningInsert


def upsert_statement(mapper: Mapper[Any], backend: str, on: Sequence[str], names: Collection[str]) -> ReturningInsert[Any]:
    """Return the INSERT ... ON CONFLICT DO UPDATE ... RETURNING of rows.

    - ``mapper``: the mapper of the model.
    - ``backend``: the database, such as "postgresql".
    - ``on``: the names of columns with a unique constraint. A row that equals the new one in them is updated.
    - ``names``: the names of the columns for which the rows have values.

    A column with an ``onupdate`` and without a value gets it, as in any other UPDATE. Raise ModelError for a database or a
    model for which there is no such statement, and for names that it cannot take.
    """
    name = mapper.class_.__qualname__
    insert = conflict_insert(backend, mapper.class_)
    if insert is None:
        raise ModelError(f"Model.upsert works on PostgreSQL and SQLite, not on {backend}")
    if len(mapper.tables) != 1:
        raise ModelError(f"Model.upsert works on models of one table. {name} has {len(mapper.tables)}")
    columns: dict[str, Column[Any]] = {attribute.key: attribute.columns[0] for attribute in mapper.column_attrs}  # type: ignore[misc]
    for each in names:
        if each not in columns:
            raise ModelError(f"{name}.{each} is not a column. Model.upsert takes columns only")
    for key in on:
        if key not in names:
            raise ModelError(f"Model.upsert({name}) finds the row by {key!r}, which is not among the values")
    changes = {columns[each].name: insert.excluded[columns[each].name] for each in names if each not in on}
    for key, column in columns.items():
        if column.onupdate is not None and key not in names:
            changes[column.name] = _onupdate(column)
    if not changes:
        # DO NOTHING would return no row.
        changes = {columns[on[0]].name: insert.excluded[columns[on[0]].name]}
    statement: ReturningInsert[Any] = insert.on_conflict_do_update(
        index_elements=[columns[key].name for key in on], set_=changes
    ).returning(mapper.class_)
    return statement


def _onupdate(column: Column[Any]) -> Any:
    default: Any = column.onupdate
    return default.arg(None) if default.is_callable else default.arg


class Upsert(KeyedStatement):
    """INSERT ... ON CONFLICT DO UPDATE. The value of a call is a row: its values by ``names``, the same in all rows.

    The key of a call is its values in the columns ``on``.
    """

    __slots__ = ("_hash", "_statement", "model", "names", "on")

    def __init__(self, model: type[Any], names: tuple[str, ...], on: tuple[str, ...], backend: str) -> None:
        self.model = model
        self.names = names
        self.on = on
        self._statement = partial(upsert_statement, inspect(model), backend, on, names)
        # The first call raises the errors at once, and not in the gather.
        self._statement()
        self._hash = hash((model, names, on))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Upsert) and (other.model, other.names, other.on) == (self.model, self.names, self.on)

    def key(self, value: Any) -> tuple[Any, ...]:
        """Return the values by which the row is found, since a statement must not change a row twice."""
        return tuple(value[name] for name in self.on)

    def order(self, values: Sequence[Any]) -> Sequence[int]:
        """Return the order of the keys. Workers that upsert the same rows in different orders would deadlock."""
        return sorted(range(len(values)), key=lambda index: [sortable(values[index][name]) for name in self.on])

    async def run(self, session: AsyncSession, values: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
        """Insert or update the rows. Return them as instances. Raise RowLeftOutError if one of them was not stored."""
        options = {"populate_existing": True}
        statement = self._statement()
        found = {}
        for row in await session.scalars(statement, list(values), execution_options=options):
            found[tuple(getattr(row, name) for name in self.on)] = row
        rows = [found.get(self.key(value)) for value in values]
        for index, row in enumerate(rows):
            if row is None:
                # Some keys are equal for the database and not for Python, for instance "1" and 1.
                again = await session.scalars(statement, [values[index]], execution_options=options)
                rows[index] = again.one_or_none()
                if rows[index] is None:
                    raise left_out(self.model, len(values))
        return rows


@lru_cache(MAX_STATEMENTS)
def upsert_of(model: Any, names: tuple[str, ...], on: tuple[str, ...], backend: str) -> Upsert:
    """Return the upsert for rows of ``model`` with values for ``names``, always the same one. Raise ModelError."""
    return Upsert(model, names, on, backend)
