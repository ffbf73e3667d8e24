"""How rows are inserted: many by one statement where they are plain, by themselves where they are not."""

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
from core.database.statements.gather import MAX_KEY_SETS, MAX_ROWS
from core.database.statements.insert import Insert, insert_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession


M = TypeVar("M")

PLAIN = frozenset({str, int, float, bool, type(None), bytes, datetime, dict, list, UUID, Decimal})
"""Types of values that need no look at what else they may be."""


def is_expression(value: Any) -> bool:
    """Say whether ``value`` is SQL, such as ``func.now()``, which an INSERT of many rows cannot hold."""
    return hasattr(value, "__clause_element__") or isinstance(value, ClauseElement)


def is_plain(model: type[Any]) -> bool:
    """Say whether rows of ``model`` can be inserted without making instances first."""
    return _plain(cast("Any", model))[0] is not None


class Insertion(NamedTuple):
    """How a row with values for certain columns is inserted: ``unless_none`` are those that None leaves out."""

    kind: Insert
    unless_none: tuple[str, ...]


@lru_cache(MAX_KEY_SETS)
def insertion_of(model: Any, keys: tuple[str, ...]) -> Insertion | None:
    """Give how rows with values for ``keys`` are inserted; None where that would pass over something of the model's own."""
    columns, with_default = _plain(model)
    if not keys or columns is None or not columns.issuperset(keys):
        return None
    return Insertion(insert_of(model, keys), tuple(key for key in keys if key in with_default))


@lru_cache(MAX_KEY_SETS)
def _plain(model: Any) -> tuple[frozenset[str] | None, frozenset[str]]:
    """Give the names of the columns of ``model``, and of those with a default that cannot tell None from nothing (JSON can).

    The former are None where something of the model's own would be passed over: a constructor, validators, listeners,
    several tables.
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
        # SQLAlchemy listens once itself.
        or len(list(manager.dispatch.init)) > 1
        or any(list(getattr(mapper.dispatch, name)) for name in ("before_insert", "after_insert"))
        or any(list(getattr(model, name).dispatch.set) for name in names)
        or any(len(attribute.columns) != 1 for attribute in mapper.column_attrs)
    ):
        return None, frozenset()
    with_default = set()
    for attribute in mapper.column_attrs:
        column: Any = attribute.columns[0]
        has_default = column.default is not None or column.server_default is not None or column.primary_key
        if has_default and not column.type.should_evaluate_none:
            with_default.add(attribute.key)
    return frozenset(names), frozenset(with_default)


def kind_of_insert(model: type[Any], values: dict[str, Any]) -> Insert | None:
    """Give how a row of ``values`` is inserted, and take those out for which None means nothing; None: it goes by itself.

    None for a column with a default means what is not given, as it does when SQLAlchemy inserts an instance.
    """
    try:
        insertion = insertion_of(cast("Any", model), tuple(values))
    except TypeError:
        # What cannot be hashed is no class.
        mapper_of(model)
        raise
    if insertion is None:
        return None
    if not PLAIN.issuperset(map(type, values.values())) and any(is_expression(value) for value in values.values()):
        return None
    left_out = [name for name in insertion.unless_none if values[name] is None]
    if not left_out:
        return insertion.kind
    for name in left_out:
        del values[name]
    return kind_of_insert(model, values)


def alike(model: type[M], rows: Sequence[Mapping[str, Any] | M]) -> list[dict[str, Any]] | None:
    """Give ``rows`` as they can be inserted by one statement; None where they are not alike, or not plain."""
    kept: list[dict[str, Any]] = []
    unless_none: tuple[str, ...] = ()
    for row in rows:
        if (
            kept
            and type(row) is dict
            and row.keys() == kept[0].keys()
            and PLAIN.issuperset(map(type, row.values()))
            and not (unless_none and None in [row[name] for name in unless_none])
        ):
            kept.append(row)
            continue
        values = dict(row) if isinstance(row, Mapping) else None
        kind = kind_of_insert(model, values) if values is not None else None
        if values is None or kind is None or (kept and values.keys() != kept[0].keys()):
            return None
        if not kept:
            insertion = insertion_of(cast("Any", model), tuple(values))
            unless_none = insertion.unless_none if insertion is not None else ()
        kept.append(values)
    return kept or None


async def insert_only(session: AsyncSession, model: type[Any], rows: list[dict[str, Any]], *, alone: bool) -> None:
    """Insert ``rows``, which have values for the same columns; ``alone`` if the transaction is to hold nothing else."""
    if session.get_bind().dialect.name == "postgresql" and await copy_rows(session, model, rows, alone=alone):
        return
    for start in range(0, len(rows), MAX_ROWS):
        await session.execute(insert(model), rows[start : start + MAX_ROWS])
