"""INSERT of many rows on PostgreSQL from one array for each column. Its text is the same for any number of rows."""

from __future__ import annotations

import re
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import ARRAY, String, Text, bindparam, column, func, insert, select, types

from core.database.mapping import key_names, mapper_of
from core.database.statements.defaults import maker_of_default
from core.database.statements.stored import left_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Column, ColumnClause, Dialect
    from sqlalchemy.ext.asyncio import AsyncSession


STANDARD_TYPES = frozenset(
    {
        *(types.SmallInteger, types.Integer, types.BigInteger, types.Float, types.Double, types.Numeric, types.Boolean),
        *(types.String, types.Text, types.Unicode, types.UnicodeText, types.LargeBinary, types.Uuid, types.JSON),
        *(types.Date, types.Time, types.DateTime),
    }
)
"""SQLAlchemy's own types that treat a value in an array as they treat it outside. Their subclasses may not do so."""
SERVER_TYPES = re.compile(
    r"SMALLINT|INTEGER|BIGINT|FLOAT|DOUBLE PRECISION|NUMERIC(\(\d+(, \d+)?\))?|BOOLEAN|TEXT|VARCHAR(\(\d+\))?|BYTEA|"
    r"UUID|JSONB?|DATE|TIME(STAMP)? WITH(OUT)? TIME ZONE"
)
"""PostgreSQL's types for those. A variant of a type may name another one, which does not match."""
COMPARABLE = frozenset({int, str, UUID, datetime})
"""Types of primary keys that come back from the database equal to what was sent."""


class ArrayInsert:
    """INSERT ... SELECT FROM unnest(...) RETURNING: rows of a model from one array for each column.

    - ``model``: the class of the rows.
    - ``given``: the columns for which each row has a value, by name.
    - ``made``: functions that make the values of other columns, by name.

    PostgreSQL numbers the rows if neither has the primary key. SQLAlchemy's own INSERT of many rows has a parameter for
    each value, and a different text for each number of rows, which the server has to parse and the driver to prepare.
    """

    __slots__ = ("_arrays", "_identify", "_key_arrays", "_key_names", "_made", "_model", "_statement")

    def __init__(self, model: type[Any], given: dict[str, Column[Any]], made: dict[str, Callable[[], Any]]) -> None:
        mapper: Any = mapper_of(model)
        columns = {attribute.key: attribute.columns[0] for attribute in mapper.column_attrs}
        filled = given | {key: columns[key] for key in made}
        self._model = model
        self._made = made
        self._arrays = {key: f"array_{number}" for number, key in enumerate(filled)}
        self._key_names = key_names(mapper)
        self._identify = attrgetter(*self._key_names)
        # There are none if PostgreSQL numbers the rows.
        self._key_arrays = [self._arrays[name] for name in self._key_names if name in filled]
        arrays = [
            bindparam(self._arrays[key], type_=ARRAY(Text() if isinstance(one.type, String) else one.type, dimensions=1))
            for key, one in filled.items()
        ]
        names: list[ColumnClause[Any]] = [column(f"value_{number}") for number in range(len(filled))]
        rows = func.unnest(*arrays).table_valued(*names, with_ordinality="place", name="given").render_derived()
        # PostgreSQL takes numbers from the sequence in the order of the SELECT.
        source = select(*[rows.c[name.name] for name in names]).order_by(rows.c.place)
        inserted = insert(mapper.local_table).from_select(list(filled.values()), source, include_defaults=False)
        self._statement = select(model).from_statement(inserted.returning(*columns.values()))

    async def run(self, session: AsyncSession, values: Sequence[Mapping[str, Any]]) -> Sequence[Any] | None:
        """Insert the rows. Return them as instances, with the values that the server made, in the order of ``values``.

        Insert nothing and return None if a primary key might not come back equal to what was sent. Raise RowLeftOutError if
        rows do not come back.
        """
        made = self._made
        arrays = {
            name: [made[key]() for _ in values] if key in made else [value[key] for value in values]
            for key, name in self._arrays.items()
        }
        parts = [arrays[name] for name in self._key_arrays]
        if not all(COMPARABLE.issuperset(map(type, part)) for part in parts):
            return None
        rows: list[Any] = list((await session.scalars(self._statement, arrays)).all())
        if len(rows) == len(values) == 1:
            return rows
        if not parts:
            rows.sort(key=self._identify)
            ordered = rows
        else:
            found = {self._identify(row): row for row in rows}
            keys: Iterable[Any] = parts[0] if len(parts) == 1 else zip(*parts, strict=True)
            ordered = [found[key] for key in keys if key in found]
        if len(ordered) != len(values):
            # A trigger that changes their keys makes them as untraceable as one that leaves them out.
            raise left_out(self._model, len(values))
        return ordered


def array_insert(model: type[Any], names: Iterable[str], dialect: Dialect) -> ArrayInsert | None:
    """Return the INSERT from arrays for rows of ``model`` with values for the columns ``names``.

    Return None if an array cannot hold a column, if only SQLAlchemy can compute a default, or if the rows that come back
    could not be matched with those that were sent.
    """
    mapper: Any = mapper_of(model)
    given: dict[str, Column[Any]] = {}
    made: dict[str, Callable[[], Any]] = {}
    wanted = frozenset(names)
    for attribute in mapper.column_attrs:
        one: Any = attribute.columns[0]
        if attribute.deferred or one.table is not mapper.local_table:
            return None
        if attribute.key in wanted:
            given[attribute.key] = one
        elif one.default is not None:
            make = maker_of_default(one)
            if make is None:
                return None
            made[attribute.key] = make
        else:
            continue
        if type(one.type) not in STANDARD_TYPES or not SERVER_TYPES.fullmatch(one.type.compile(dialect)):
            return None
    if len(given) != len(wanted) or len(mapper.column_attrs) != len(mapper.local_table.columns):
        return None
    filled = given.keys() | made.keys()
    if not filled.issuperset(key_names(mapper)) and not (len(mapper.primary_key) == 1 and _numbered(mapper.primary_key[0])):
        return None
    return ArrayInsert(model, given, made)


def _numbered(key: Any) -> bool:
    """Return whether PostgreSQL numbers ``key``, with numbers that rise in the order of the rows."""
    if key is not key.table.autoincrement_column:
        return False
    if key.identity is not None:
        return not key.identity.cycle and (key.identity.increment or 1) > 0
    return key.server_default is None
