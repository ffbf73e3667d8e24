"""INSERT of many rows on PostgreSQL from one array for each column: one statement, whatever the number of rows."""

from __future__ import annotations

import re
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import ARRAY, String, Text, bindparam, column, func, insert, select, types
from sqlalchemy.exc import InvalidRequestError

from core.database.mapping import key_names, mapper_of
from core.database.statements.defaults import maker_of_default

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Column, ColumnClause, Dialect
    from sqlalchemy.ext.asyncio import AsyncSession


STOCK = frozenset(
    {
        *(types.SmallInteger, types.Integer, types.BigInteger, types.Float, types.Double, types.Numeric, types.Boolean),
        *(types.String, types.Text, types.Unicode, types.UnicodeText, types.LargeBinary, types.Uuid, types.JSON),
        *(types.Date, types.Time, types.DateTime),
    }
)
"""SQLAlchemy's own types that do with a value in an array what they do with it outside; not what derives from them."""
DDL = re.compile(
    r"SMALLINT|INTEGER|BIGINT|FLOAT|DOUBLE PRECISION|NUMERIC(\(\d+(, \d+)?\))?|BOOLEAN|TEXT|VARCHAR(\(\d+\))?|BYTEA|"
    r"UUID|JSONB?|DATE|TIME(STAMP)? WITH(OUT)? TIME ZONE"
)
"""Their types on the server: a variant may have made another one of them."""
COMPARABLE = frozenset({int, str, UUID, datetime})
"""Types of keys that come back equal to what was sent."""


class ArrayInsert:
    """INSERT ... SELECT FROM unnest(...) RETURNING, into ``model``, of rows with values for the columns ``given``.

    ``made`` makes the values of others, by name; where neither has the primary key, PostgreSQL numbers the rows.
    SQLAlchemy's own INSERT of many rows has a parameter for each value, and another text for each number of rows, which
    the server has to parse and the driver to prepare.
    """

    __slots__ = ("_arrays", "_identify", "_key_arrays", "_key_names", "_made", "_statement")

    def __init__(self, model: type[Any], given: dict[str, Column[Any]], made: dict[str, Callable[[], Any]]) -> None:
        mapper: Any = mapper_of(model)
        columns = {attribute.key: attribute.columns[0] for attribute in mapper.column_attrs}
        filled = given | {key: columns[key] for key in made}
        self._made = made
        self._arrays = {key: f"array_{number}" for number, key in enumerate(filled)}
        self._key_names = key_names(mapper)
        self._identify = attrgetter(*self._key_names)
        # There are none where PostgreSQL numbers the rows.
        self._key_arrays = [self._arrays[name] for name in self._key_names if name in filled]
        arrays = [
            bindparam(self._arrays[key], type_=ARRAY(Text() if isinstance(one.type, String) else one.type, dimensions=1))
            for key, one in filled.items()
        ]
        names: list[ColumnClause[Any]] = [column(f"value_{number}") for number in range(len(filled))]
        rows = func.unnest(*arrays).table_valued(*names, with_ordinality="place", name="given").render_derived()
        # Numbers are drawn from the sequence in the order of the SELECT.
        source = select(*[rows.c[name.name] for name in names]).order_by(rows.c.place)
        inserted = insert(mapper.local_table).from_select(list(filled.values()), source, include_defaults=False)
        self._statement = select(model).from_statement(inserted.returning(*columns.values()))

    async def run(self, session: AsyncSession, values: Sequence[Mapping[str, Any]]) -> Sequence[Any] | None:
        """Insert the rows, and give them as instances with what the server made of them, in the order of ``values``.

        None, and nothing is inserted, where a key might not come back equal to what was sent.
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
            there = rows
        else:
            found = {self._identify(row): row for row in rows}
            keys: Iterable[Any] = parts[0] if len(parts) == 1 else zip(*parts, strict=True)
            there = [found[key] for key in keys if key in found]
        if len(there) != len(values):
            raise InvalidRequestError(
                f"{len(values)} rows were inserted, and for {len(there)} of them one came back that has their "
                f"{' and '.join(self._key_names)}; is there a trigger that leaves rows out?"
            )
        return there


def array_insert(model: type[Any], keys: Iterable[str], dialect: Dialect) -> ArrayInsert | None:
    """Give how rows of ``model`` with values for ``keys`` are inserted on PostgreSQL.

    None where arrays cannot hold a column, a default needs the row, or instances could not be told apart.
    """
    mapper: Any = mapper_of(model)
    given: dict[str, Column[Any]] = {}
    made: dict[str, Callable[[], Any]] = {}
    wanted = frozenset(keys)
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
        if type(one.type) not in STOCK or not DDL.fullmatch(one.type.compile(dialect)):
            return None
    if len(given) != len(wanted) or len(mapper.column_attrs) != len(mapper.local_table.columns):
        return None
    filled = given.keys() | made.keys()
    if not filled.issuperset(key_names(mapper)) and not (len(mapper.primary_key) == 1 and _numbered(mapper.primary_key[0])):
        return None
    return ArrayInsert(model, given, made)


def _numbered(key: Any) -> bool:
    """Say whether PostgreSQL gives ``key`` rising numbers in the order of the rows."""
    if key is not key.table.autoincrement_column:
        return False
    if key.identity is not None:
        return not key.identity.cycle and (key.identity.increment or 1) > 0
    return key.server_default is None
