"""INSERT ... ON CONFLICT DO UPDATE for a model."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect
from sqlalchemy.dialects import postgresql, sqlite

from core.database.mapping import key_names, sortable
from core.database.statements.gather import MAX_KEY_SETS, Kind
from core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping, Sequence

    from sqlalchemy import Column
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Mapper
    from sqlalchemy.sql.dml import ReturningInsert


_INSERT: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


def upsert_statement(
    mapper: Mapper[Any], backend: str, on: Sequence[str] | None, names: Collection[str]
) -> ReturningInsert[Any]:
    """Give the statement that inserts rows with values for ``names``, or updates those that equal them in ``on``.

    It is run with a list of rows, and returns them. Columns with an ``onupdate`` are updated by it, as in any other UPDATE.
    Raises ModelError.
    """
    name = mapper.class_.__qualname__
    if backend not in _INSERT:
        raise ModelError(f"Model.upsert works on PostgreSQL and SQLite, not on {backend}")
    if len(mapper.tables) != 1:
        raise ModelError(f"Model.upsert works on models of one table; {name} has {len(mapper.tables)}")
    columns: dict[str, Column[Any]] = {attribute.key: attribute.columns[0] for attribute in mapper.column_attrs}  # type: ignore[misc]
    for given in names:
        if given not in columns:
            raise ModelError(f"{name}.{given} is not a column; Model.upsert takes columns only")
    keys = list(key_names(mapper)) if on is None else list(on)
    for key in keys:
        if key not in names:
            raise ModelError(f"Model.upsert({name}) finds the row by {key!r}, which is not among the values")
    insert = _INSERT[backend](mapper.class_)
    changes = {columns[given].name: insert.excluded[columns[given].name] for given in names if given not in keys}
    for key, column in columns.items():
        if column.onupdate is not None and key not in names:
            changes[column.name] = _onupdate(column)
    if not changes:
        # DO NOTHING would return no row.
        changes = {columns[keys[0]].name: insert.excluded[columns[keys[0]].name]}
    statement: ReturningInsert[Any] = insert.on_conflict_do_update(
        index_elements=[columns[key].name for key in keys], set_=changes
    ).returning(mapper.class_)
    return statement


def _onupdate(column: Column[Any]) -> Any:
    default: Any = column.onupdate
    return default.arg(None) if default.is_callable else default.arg


class Upsert(Kind):
    """INSERT ... ON CONFLICT DO UPDATE of rows that have values for the same columns, sorted by what they are found by."""

    __slots__ = ("_hash", "_statement", "keys", "model", "on")

    def __init__(self, model: type[Any], keys: tuple[str, ...], on: tuple[str, ...], backend: str) -> None:
        self.model = model
        self.keys = keys
        self.on = on
        self._statement = partial(upsert_statement, inspect(model), backend, on, keys)
        # Raises now what cannot be.
        self._statement()
        self._hash = hash((model, keys, on))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Upsert) and (other.model, other.keys, other.on) == (self.model, self.keys, self.on)

    def apart(self, value: Any) -> Hashable:
        """Keep rows with the same key apart: a statement must not touch a row twice."""
        return tuple(value[name] for name in self.on)

    def order(self, values: Sequence[Any]) -> list[int]:
        """Sorted by key: two workers that upsert the same rows in different orders would deadlock."""
        return sorted(range(len(values)), key=lambda index: [sortable(values[index][name]) for name in self.on])

    async def run(self, session: AsyncSession, values: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
        """Insert or update the rows, and give them as instances."""
        options = {"populate_existing": True}
        statement = self._statement()
        found = {}
        for row in await session.scalars(statement, list(values), execution_options=options):
            found[tuple(getattr(row, name) for name in self.on)] = row
        rows = [found.get(tuple(value[name] for name in self.on)) for value in values]
        for index, row in enumerate(rows):
            if row is None:
                # The database takes some keys for equal that Python does not, "1" and 1 for instance.
                rows[index] = (await session.scalars(statement, [values[index]], execution_options=options)).one()
        return rows


@lru_cache(MAX_KEY_SETS)
def upsert_of(model: Any, keys: tuple[str, ...], on: tuple[str, ...], backend: str) -> Upsert:
    """Give the kind, the same one each time."""
    return Upsert(model, keys, on, backend)
