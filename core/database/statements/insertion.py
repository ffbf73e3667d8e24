"""How rows are inserted: many by one statement if they are plain, and each by itself if they are not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast
from uuid import UUID

from sqlalchemy import ClauseElement, insert

from core.database.mapping import mapper_of
from core.database.statements.copy import copy_rows
from core.database.statements.gather import MAX_ROWS, MAX_STATEMENTS
from core.database.statements.insert import Insert, insert_of
from core.database.statements.stored import check_stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession


M = TypeVar("M")

PLAIN_TYPES = frozenset({str, int, float, bool, type(None), bytes, datetime, dict, list, UUID, Decimal})
"""Types of values that cannot be SQL expressions."""


def _is_expression(value: Any) -> bool:
    """Return whether ``value`` is an SQL expression, such as ``func.now()``, which an INSERT of many rows cannot hold."""
    return hasattr(value, "__clause_element__") or isinstance(value, ClauseElement)


def is_plain(model: type[Any]) -> bool:
    """Return whether rows of ``model`` can be inserted without making instances first."""
    return _columns_of(cast("Any", model)).names is not None


class _Insertion(NamedTuple):
    """How rows with values for certain columns are inserted. None in a column of ``with_default`` stands for no value."""

    insert: Insert
    with_default: tuple[str, ...]


@lru_cache(MAX_STATEMENTS)
def _insertion_of(model: Any, names: tuple[str, ...]) -> _Insertion | None:
    """Return how rows of ``model`` with values for ``names`` are inserted. Return None if that takes instances."""
    columns = _columns_of(model)
    if not names or columns.names is None or not columns.names.issuperset(names):
        return None
    return _Insertion(insert_of(model, names), tuple(name for name in names if name in columns.with_default))


class _Columns(NamedTuple):
    """The columns of a model.

    - ``names``: the names of all columns. None if rows of the model can only be inserted as instances.
    - ``with_default``: the names of the columns in which None stands for the default. None is a value in a JSON column.
    """

    names: frozenset[str] | None
    with_default: frozenset[str]


@lru_cache(MAX_STATEMENTS)
def _columns_of(model: Any) -> _Columns:
    """Return the columns of ``model``.

    Its rows can only be inserted as instances if it has a constructor, validators, listeners or several tables of its own,
    which an INSERT of values would not heed.
    """
    mapper = mapper_of(model)
    manager = mapper.class_manager
    constructor = getattr(mapper.registry, "constructor", None)
    names = [attribute.key for attribute in mapper.column_attrs]
    if (
        manager.original_init is not constructor
        or len(mapper.tables) != 1
        or mapper.polymorphic_on is not None
        or mapper.version_id_col is not None
        or mapper.validators
        # One of the listeners is SQLAlchemy's own.
        or len(list(manager.dispatch.init)) > 1
        or any(list(getattr(mapper.dispatch, name)) for name in ("before_insert", "after_insert"))
        or any(list(getattr(model, name).dispatch.set) for name in names)
        or any(len(attribute.columns) != 1 for attribute in mapper.column_attrs)
    ):
        return _Columns(None, frozenset())
    with_default = set()
    for attribute in mapper.column_attrs:
        column: Any = attribute.columns[0]
        has_default = column.default is not None or column.server_default is not None or column.primary_key
        if has_default and not column.type.should_evaluate_none:
            with_default.add(attribute.key)
    return _Columns(frozenset(names), frozenset(with_default))


def shared_insert(model: type[Any], values: dict[str, Any]) -> Insert | None:
    """Return the INSERT that a row of ``values`` shares with other rows. Return None if the row is inserted by itself.

    Remove None from ``values`` for each column with a default. None stands for no value there, as it does when SQLAlchemy
    inserts an instance.
    """
    try:
        insertion = _insertion_of(cast("Any", model), tuple(values))
    except TypeError:
        # A class can be hashed, so that this is not a model.
        mapper_of(model)
        raise
    if insertion is None:
        return None
    if not PLAIN_TYPES.issuperset(map(type, values.values())) and any(_is_expression(value) for value in values.values()):
        return None
    empty = [name for name in insertion.with_default if values[name] is None]
    if not empty:
        return insertion.insert
    for name in empty:
        del values[name]
    return shared_insert(model, values)


def rows_for_one_insert(model: type[M], rows: Sequence[Mapping[str, Any] | M]) -> list[dict[str, Any]] | None:
    """Return ``rows`` as one INSERT can take them. Return None if their columns differ, or if one is inserted by itself."""
    kept: list[dict[str, Any]] = []
    with_default: tuple[str, ...] = ()
    for row in rows:
        if (
            kept
            and type(row) is dict
            and row.keys() == kept[0].keys()
            and PLAIN_TYPES.issuperset(map(type, row.values()))
            and not (with_default and None in [row[name] for name in with_default])
        ):
            kept.append(row)
            continue
        values = dict(row) if isinstance(row, Mapping) else None
        shared = shared_insert(model, values) if values is not None else None
        if values is None or shared is None or (kept and values.keys() != kept[0].keys()):
            return None
        if not kept:
            insertion = _insertion_of(cast("Any", model), tuple(values))
            with_default = insertion.with_default if insertion is not None else ()
        kept.append(values)
    return kept or None


async def insert_without_returning(
    session: AsyncSession, model: type[Any], rows: list[dict[str, Any]], *, alone: bool
) -> None:
    """Insert ``rows``, which have values for the same columns. ``alone`` says that the transaction holds nothing else.

    Raise RowLeftOutError if one of them was not stored.
    """
    dialect = session.get_bind().dialect
    if dialect.name == "postgresql" and await copy_rows(session, model, rows, alone=alone):
        return
    statement = insert(model)
    counts = bool(dialect.insert_executemany_returning)
    if counts:
        statement = statement.returning(*mapper_of(model).primary_key)
    for start in range(0, len(rows), MAX_ROWS):
        part = rows[start : start + MAX_ROWS]
        done = await session.execute(statement, part)
        if counts:
            check_stored(model, len(part), len(done.all()))
