"""INSERT ... ON CONFLICT DO UPDATE for a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import postgresql, sqlite

from core.database.mapping import key_names
from core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Column
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
