"""The kinds of calls that can be gathered: insert and upsert; find, update and delete by primary key."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Integer, insert, inspect, select, tuple_

from core.database.mapping import key_names
from core.database.statements.array_insert import ArrayInsert, array_insert
from core.database.statements.gather import Kind
from core.database.statements.upsert import upsert_statement

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence
    from types import EllipsisType

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Mapper
    from sqlalchemy.sql.dml import ReturningInsert

MOST_KEY_SETS = 1024


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


@lru_cache(MOST_KEY_SETS)
def insert_of(model: Any, keys: tuple[str, ...]) -> Insert:
    """Give the kind, the same one each time."""
    return Insert(model, keys)


class Find(Kind):
    """SELECT ... WHERE primary key IN (...)."""

    __slots__ = ("_columns", "model")

    def __init__(self, model: type[Any]) -> None:
        self.model = model
        mapper: Mapper[Any] = inspect(model)
        self._columns = mapper.primary_key

    def __hash__(self) -> int:
        return hash(self.model)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Find) and other.model is self.model

    def apart(self, value: Any) -> Hashable:
        """Keep callers of one row apart: they must not share an instance."""
        return value  # type: ignore[no-any-return]

    def statement(self, keys: Sequence[tuple[Any, ...]]) -> Select[Any]:
        """Give the SELECT of the rows with the primary keys ``keys``."""
        columns = self._columns
        if len(columns) == 1:
            return select(self.model).where(columns[0].in_([key for (key,) in keys]))
        return select(self.model).where(tuple_(*columns).in_(keys))

    async def run(self, session: AsyncSession, values: Sequence[Any]) -> Sequence[Any]:
        """Give the instances, None where there is none."""
        if len(values) == 1:
            found_one: Any = await session.get(self.model, values[0])
            return [found_one]
        columns = self._columns
        mapper: Mapper[Any] = inspect(self.model)
        found = {}
        for row in (await session.scalars(self.statement([_key(value) for value in values]))).unique():
            key = mapper.primary_key_from_instance(row)
            found[key[0] if len(columns) == 1 else tuple(key)] = row
        rows = [found.pop(value, None) for value in values]
        if found:
            # The database takes some keys for equal that Python does not, "1" and 1 for instance.
            for index, value in enumerate(values):
                if rows[index] is None:
                    rows[index] = await session.get(self.model, value)
        return rows


def _key(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@lru_cache(MOST_KEY_SETS)
def find_of(model: Any) -> Find:
    """Give the kind, the same one each time."""
    return Find(model)


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
        return sorted(range(len(values)), key=lambda index: [_sortable(values[index][name]) for name in self.on])

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


@lru_cache(MOST_KEY_SETS)
def upsert_of(model: Any, keys: tuple[str, ...], on: tuple[str, ...], backend: str) -> Upsert:
    """Give the kind, the same one each time."""
    return Upsert(model, keys, on, backend)


class _ByKey(Kind):
    """What changes rows of ``model`` that are found by primary key, in its order."""

    __slots__ = ("_find", "model")

    def __init__(self, model: type[Any]) -> None:
        self.model = model
        self._find = find_of(cast("Any", model))

    def __hash__(self) -> int:
        return hash((type(self), self.model))

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and getattr(other, "model", None) is self.model

    @staticmethod
    def _sort(keys: Sequence[Any]) -> list[int]:
        return sorted(range(len(keys)), key=lambda index: _sortable_key(keys[index]))


class Update(_ByKey):
    """UPDATE of rows found by primary key; a value is the key with the new values by name."""

    def apart(self, value: Any) -> Hashable:
        """Keep changes of one row apart: they come one after the other."""
        return value[0]  # type: ignore[no-any-return]

    def order(self, values: Sequence[Any]) -> list[int]:
        """Sorted by key: two workers that change the same rows in different orders would deadlock."""
        return self._sort([key for key, _ in values])

    async def run(self, session: AsyncSession, values: Sequence[tuple[Any, Mapping[str, Any]]]) -> Sequence[Any]:
        """Change the rows and give them as instances, None where there is none."""
        rows = await self._find.run(session, [key for key, _ in values])
        for row, (_, changes) in zip(rows, values, strict=True):
            if row is not None:
                for name, value in changes.items():
                    setattr(row, name, value)
        await session.flush()
        there = [row for row in rows if row is not None]
        if len(there) == 1:
            await session.refresh(there[0])
        elif there:
            keys = [inspect(row).identity for row in there]
            await session.execute(self._find.statement(keys), execution_options={"populate_existing": True})
        return rows


class Delete(_ByKey):
    """DELETE of rows found by primary key, with the cascades of their relationships."""

    def apart(self, value: Any) -> Hashable:
        """Keep deletes of one row apart: only the first one finds it."""
        return value  # type: ignore[no-any-return]

    def order(self, values: Sequence[Any]) -> list[int]:
        """Sorted by key, as updates are."""
        return self._sort(values)

    async def run(self, session: AsyncSession, values: Sequence[Any]) -> Sequence[bool]:
        """Delete the rows, and say for each key whether there was one."""
        rows = await self._find.run(session, values)
        for row in rows:
            if row is not None:
                await session.delete(row)
        await session.flush()
        return [row is not None for row in rows]


@lru_cache(MOST_KEY_SETS)
def update_of(model: Any) -> Update:
    """Give the kind, the same one each time."""
    return Update(model)


@lru_cache(MOST_KEY_SETS)
def delete_of(model: Any) -> Delete:
    """Give the kind, the same one each time."""
    return Delete(model)


def _sortable_key(key: Any) -> list[tuple[str, Any]]:
    return [_sortable(part) for part in _key(key)]


def _sortable(value: Any) -> tuple[str, Any]:
    return type(value).__name__, value if isinstance(value, int | float | str | bytes) else str(value)
