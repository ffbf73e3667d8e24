"""Rows that PostgreSQL is sent as one array a column: the same rows as ever, and the old way where arrays do not do."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Enum,
    Identity,
    Integer,
    MetaData,
    Sequence,
    String,
    Table,
    Text,
    TypeDecorator,
    Uuid,
    func,
    make_url,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.orm import column_property, deferred, registry

from core.database.current import configured
from core.database.statements.array_insert import array_insert
from core.database.statements.defaults import maker_of_default
from core.model import Model
from tests.support.postgres import postgres

DIALECT = make_url("postgresql+asyncpg://").get_dialect()()


class Shouted(TypeDecorator[str]):
    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else value.upper()


class Own(String):
    """One that might do anything."""


def model_of(*columns: Column[Any], **properties: Any) -> Any:
    model = type("Thing", (), {})
    table = Table("things", MetaData(), *columns)
    made = {name: make(table) for name, make in properties.items()}
    registry().map_imperatively(model, table, properties=made)
    return model


def number(**options: Any) -> Column[int]:
    return Column("id", Integer, primary_key=True, **options)


def name(kind: Any = String, **options: Any) -> Column[Any]:
    return Column("name", kind, **options)


@pytest.fixture
def url() -> str:
    return postgres().new_database()


def inserts(statements: list[str]) -> list[str]:
    return [one for one in statements if one.startswith("INSERT")]


async def create(model: Any, rows: list[dict[str, Any]]) -> list[Any]:
    await configured().create_tables(model.__table__.metadata)
    return await asyncio.gather(*(Model.create(model, **row) for row in rows), return_exceptions=True)


async def test_any_number_of_rows_is_one_and_the_same_statement(statements: list[str]) -> None:
    model = model_of(number(), name(), Column("at", DateTime(timezone=True), server_default=func.now()))
    for rows in (2, 3, 50, 500):
        made = await create(model, [{"name": f"n{one}"} for one in range(rows)])
        assert [row.name for row in made] == [f"n{one}" for one in range(rows)]
        assert [row.id for row in made] == sorted(row.id for row in made)
        assert all(row.at is not None for row in made)
    assert len(inserts(statements)) == 4
    assert len(set(inserts(statements))) == 1
    assert "unnest" in inserts(statements)[0]


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        (lambda: [number(server_default=Identity(always=True)), name()], [{"name": letter} for letter in "cab"]),
        (lambda: [number(), name()], [{"id": key, "name": "n"} for key in (7, 3, 5)]),
        (lambda: [Column("id", String(8), primary_key=True), name()], [{"id": key, "name": "n"} for key in "cab"]),
        (lambda: [Column("id", Uuid, primary_key=True, default=uuid.uuid4), name()], [{"name": letter} for letter in "cab"]),
        (
            lambda: [
                Column("device", String, primary_key=True),
                Column("at", DateTime(timezone=True), primary_key=True),
                Column("value", JSON().with_variant(postgresql.JSONB, "postgresql")),
            ],
            [{"device": "d", "at": datetime(2026, 1, day, tzinfo=UTC), "value": [day, [None]]} for day in (3, 1, 2)],
        ),
    ],
    ids=["identity", "given number", "given text", "made UUID", "two columns"],
)
async def test_each_caller_gets_its_own_row(
    statements: list[str], columns: Callable[[], list[Column[Any]]], rows: list[dict[str, Any]]
) -> None:
    model = model_of(*columns())
    made = await create(model, rows)
    assert [{key: getattr(one, key) for key in row} for one, row in zip(made, rows, strict=True)] == rows
    assert len(inserts(statements)) == 1
    assert "unnest" in inserts(statements)[0]


@pytest.mark.parametrize(
    "model",
    [
        lambda: model_of(number(), name(Shouted)),
        lambda: model_of(number(), name(Own)),
        lambda: model_of(number(), name(Enum("a", "b", name="letters"))),
        lambda: model_of(number(), name(String().with_variant(postgresql.CITEXT, "postgresql"))),
        lambda: model_of(number(), name(String(collation="C"))),
        lambda: model_of(number(), name(), Column("other", Integer, default=func.random())),
        lambda: model_of(number(), name(), Column("other", Integer, default=lambda context: context.isinsert)),
        lambda: model_of(number(), name(), Column("other", Integer, Sequence("others"))),
        lambda: model_of(number(server_default=Identity(increment=-1)), name()),
        lambda: model_of(number(server_default=Identity(cycle=True)), name()),
        lambda: model_of(Column("id", Uuid, primary_key=True, server_default=func.gen_random_uuid()), name()),
        lambda: model_of(number(), Column("part", Integer, primary_key=True, server_default="1"), name()),
        lambda: model_of(number(), name(), Column("text", Text), text=lambda table: deferred(table.c.text)),
        lambda: model_of(number(), name(), both=lambda table: column_property(table.c.name + "!")),
    ],
)
def test_what_arrays_do_not_do_goes_the_way_of_sqlalchemy(model: Callable[[], Any]) -> None:
    assert array_insert(model(), ["name"], DIALECT) is None


async def test_what_is_too_long_is_refused_and_not_cut(database: str) -> None:
    model = model_of(number(), name(String(3)))
    made = await create(model, [{"name": "abc"}, {"name": "abcd"}, {"name": "ab"}])
    assert [getattr(one, "name", None) for one in made] == ["abc", None, "ab"]
    assert isinstance(made[1], DBAPIError)


async def test_nothing_in_json_is_what_it_is_in_a_single_row(database: str) -> None:
    model = model_of(number(), Column("json", JSON), Column("sql", JSON(none_as_null=True)))
    await create(model, [{"json": None, "sql": None}])
    await create(model, [{"json": None, "sql": None}] * 2)
    async with Model.session() as session:
        found = await session.execute(text("SELECT json::text, sql::text FROM things"))
        assert {tuple(row) for row in found} == {("null", None)}


async def test_a_trigger_that_takes_a_row_away_costs_the_others_nothing(database: str) -> None:
    model = model_of(number(), name())
    await configured().create_tables(model.__table__.metadata)
    async with Model.session() as session:
        await session.execute(
            text(
                "CREATE FUNCTION filter() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN IF NEW.name = 'b' THEN RETURN NULL; END IF; RETURN NEW; END $$"
            )
        )
        await session.execute(text("CREATE TRIGGER filter BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION filter()"))
        await session.commit()
    made = await create(model, [{"name": letter} for letter in "abc"])
    assert [getattr(one, "name", None) for one in made] == ["a", None, "c"]
    assert isinstance(made[1], Exception)
    assert [row.name for row in await Model.where(model, order_by=model.id)] == ["a", "c"]


async def test_keys_that_might_come_back_otherwise_go_the_way_of_sqlalchemy(statements: list[str]) -> None:
    model = model_of(Column("id", BigInteger, primary_key=True), name())
    await configured().create_tables(model.__table__.metadata)
    made = await Model.create_many(model, [{"id": True, "name": "a"}, {"id": 2, "name": "b"}])
    assert [one.name for one in made] == ["a", "b"]
    assert "unnest" not in inserts(statements)[0]


async def test_a_single_row_goes_the_same_way_as_many(statements: list[str]) -> None:
    model = model_of(number(), name())
    await create(model, [{"name": "a"}])
    await create(model, [{"name": "b"}, {"name": "c"}])
    assert len(inserts(statements)) == 2
    assert len(set(inserts(statements))) == 1


async def test_defaults_are_made_for_each_row_by_itself(database: str) -> None:
    counted = iter(range(100))
    model = model_of(
        number(),
        name(),
        Column("count", Integer, default=lambda: next(counted)),
        Column("fixed", Integer, default=7),
        Column("lasted", Integer, nullable=False, default=lambda: timedelta(hours=1).seconds),
    )
    made = await create(model, [{"name": "n"}] * 5)
    assert sorted(one.count for one in made) == [0, 1, 2, 3, 4]
    assert {(one.fixed, one.lasted) for one in made} == {(7, 3600)}


@pytest.mark.parametrize("returning", [True, False])
async def test_a_default_made_from_its_row_is(database: str, returning: bool) -> None:
    model = model_of(number(), name(), Column("length", Integer, default=lambda c: len(c.get_current_parameters()["name"])))
    await configured().create_tables(model.__table__.metadata)
    await Model.create_many(model, [{"name": "a"}, {"name": "bb"}], returning=returning)
    assert [row.length for row in await Model.where(model, order_by=model.id)] == [1, 2]


def default_of(column: Column[Any]) -> Any:
    make = maker_of_default(column)
    assert make is not None
    return make()


def test_makers_of_defaults() -> None:
    assert default_of(Column(Integer, default=3)) == 3
    assert default_of(Column(Integer, default=lambda: 4)) == 4
    assert default_of(Column(JSON, default=dict)) == {}
    assert default_of(Column(JSON, default=list)) == []
    assert isinstance(default_of(Column(Uuid, default=uuid.uuid4)), uuid.UUID)
    assert default_of(Column(Integer, default=lambda value=6: value)) == 6
    assert maker_of_default(Column(Integer, default=lambda _context: 5)) is None
    assert maker_of_default(Column(Integer, default=func.now())) is None


async def test_a_value_of_the_wrong_type_costs_its_row_alone(database: str) -> None:
    model = model_of(number(), Column("at", DateTime(timezone=True)), Column("count", Integer))
    good = datetime(2026, 1, 1, tzinfo=UTC)
    made = await create(
        model,
        [{"at": good, "count": 1}, {"at": "today", "count": 2}, {"at": good, "count": 2**40}, {"at": good, "count": 4}],
    )
    assert [getattr(one, "count", None) for one in made] == [1, None, None, 4]
    assert all(isinstance(one, StatementError) for one in made[1:3])
