"""Random models, values, failures and cancellations: what gathered calls leave is what plain SQLAlchemy leaves.

Each round of calls is made through ``Model`` all at once, with some of the callers cancelled on the way, and once more on a
second database by plain sessions of SQLAlchemy, one after the other. Rows, results and types of errors must be the same.
"""

from __future__ import annotations

import asyncio
import enum
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Enum,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    TypeDecorator,
    Uuid,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import registry

from core.database.current import configured
from core.model import Model
from tests.database.conftest import url_of


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Backwards(TypeDecorator[str]):
    """A type whose values are made in Python."""

    impl = String(40)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else value[::-1]

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else value[::-1]


def tag_of_row(context: Any) -> Any:
    """A default that is made from the row."""
    return context.get_current_parameters()["tag"]


TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=["Cs"]), max_size=8)
COLUMNS: dict[str, tuple[Callable[[], Column[Any]], st.SearchStrategy[Any]]] = {
    "text": (lambda: Column("text", String(40)), TEXTS),
    "needed": (lambda: Column("needed", String(40), nullable=False, server_default="none"), TEXTS),
    "unique": (lambda: Column("unique", Integer, unique=True), st.one_of(st.none(), st.integers(0, 6))),
    "positive": (lambda: Column("positive", Integer, CheckConstraint("positive > 0")), st.integers(-1, 5)),
    "number": (lambda: Column("number", Float), st.one_of(st.floats(-1e6, 1e6), st.just("no number"))),
    "price": (lambda: Column("price", Numeric(8, 2)), st.decimals(-1000, 1000, places=2).map(Decimal)),
    "colour": (
        lambda: Column("colour", Enum(Colour, validate_strings=True)),
        st.one_of(st.sampled_from(Colour), st.just("GREEN")),
    ),
    "json": (lambda: Column("json", JSON), st.one_of(st.none(), st.dictionaries(TEXTS, st.integers(), max_size=2))),
    "raw": (lambda: Column("raw", LargeBinary), st.binary(max_size=6)),
    "made": (lambda: Column("made", Integer, default=lambda: 7), st.one_of(st.none(), st.integers(0, 9))),
    "fixed": (lambda: Column("fixed", Integer, default=3), st.integers(0, 9)),
    "mirrored": (lambda: Column("mirrored", Backwards), TEXTS),
    "at": (lambda: Column("at", DateTime(timezone=True)), st.just(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))),
    "short": (lambda: Column("short", String(3)), TEXTS),
    "document": (
        lambda: Column("document", JSON().with_variant(JSONB, "postgresql")),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(-9, 9), TEXTS),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=5,
        ),
    ),
    "big": (lambda: Column("big", BigInteger), st.one_of(st.none(), st.integers(-(2**63), 2**63))),
    "flag": (lambda: Column("flag", Boolean), st.sampled_from([True, False, None, 1, 2])),
    "uid": (lambda: Column("uid", Uuid), st.one_of(st.none(), st.uuids(), st.just("no uuid"))),
    "naive": (
        lambda: Column("naive", DateTime),
        st.sampled_from([datetime(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC)]),
    ),
    "repeated": (lambda: Column("repeated", Integer, default=tag_of_row), st.integers(0, 9)),
    "later": (lambda: Column("later", Integer, onupdate=lambda: 11), st.none()),
}
KEYS: dict[str, Callable[[], Column[Any]]] = {
    "numbered": lambda: Column("id", Integer, primary_key=True),
    "uuid": lambda: Column("id", Uuid, primary_key=True, default=uuid.uuid4),
}


@dataclass(frozen=True)
class Call:
    kind: str
    values: tuple[tuple[str, Any], ...] = ()
    row: int = 0
    cancelled: int | None = None


Run = tuple[str, tuple[str, ...], list[list[Call]]]
"""A kind of key, names of columns, and rounds of calls."""


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """A model, and rounds of calls on it: creates with values for some of the columns, finds and updates of earlier rows."""
    key = draw(st.sampled_from(sorted(KEYS)))
    names = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=5, unique=True))
    rounds = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["create", "create", "find", "update"]))
        given = draw(st.lists(st.sampled_from(names), unique=True)) if kind != "find" else []
        calls = []
        for _ in range(draw(st.integers(1, 12))):
            values = tuple((name, draw(COLUMNS[name][1])) for name in given)
            cancelled = draw(st.sampled_from([None, None, None, 0, 1, 2, 5])) if kind == "create" else None
            calls.append(Call(kind, values, draw(st.integers(0, 20)), cancelled))
        rounds.append(calls)
    return key, tuple(names), rounds


def make_model(key: str, names: tuple[str, ...]) -> Any:
    table = Table(
        "things",
        MetaData(),
        KEYS[key](),
        Column("tag", Integer, nullable=False),
        Column("stamp", DateTime(timezone=True), server_default=func.now()),
        *(COLUMNS[name][0]() for name in names),
    )
    model = type("Thing", (), {})
    registry().map_imperatively(model, table)
    return model


def shown(result: Any, model: Any, names: tuple[str, ...]) -> Any:
    if isinstance(result, BaseException):
        return type(result).__name__
    if result is None:
        return None
    assert result.stamp is not None
    assert result.id is not None
    return (result.tag, *(getattr(result, name) for name in names))


async def plainly(engine: Any, model: Any, call: Call, tag: int, keys: list[Any]) -> Any:
    async with AsyncSession(engine, expire_on_commit=False) as session:
        if call.kind == "create":
            row = model()
            for name, value in (("tag", tag), *call.values):
                setattr(row, name, value)
            session.add(row)
        else:
            row = await session.get(model, keys[call.row % len(keys)]) if keys else None
            if row is None or call.kind == "find":
                return row
            for name, value in call.values:
                setattr(row, name, value)
        await session.commit()
        await session.refresh(row)
        return row


def gathered(model: Any, call: Call, tag: int, keys: list[Any]) -> Any:
    if call.kind == "create":
        return Model.create(model, tag=tag, **dict(call.values))
    key = keys[call.row % len(keys)]
    return Model.find(model, key) if call.kind == "find" else Model.update(model, key, **dict(call.values))


async def leaving(made: Coroutine[Any, Any, Any], turns: int) -> Any:
    """Make a call, and leave it after so many turns of the event loop."""
    task = asyncio.ensure_future(made)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    return (await asyncio.gather(task, return_exceptions=True))[0]


async def compare(urls: tuple[str, str], key: str, names: tuple[str, ...], rounds: list[list[Call]]) -> None:
    model = make_model(key, names)
    Model.configure(urls[0])
    await configured().create_tables(model.__table__.metadata)
    engine = create_async_engine(urls[1])
    async with engine.begin() as connection:
        await connection.run_sync(model.__table__.metadata.create_all)
    own_keys: list[Any] = []
    plain_keys: list[Any] = []
    tag = 0
    try:
        for calls in rounds:
            if calls[0].kind != "create" and not own_keys:
                continue
            tags = list(range(tag, tag + len(calls)))
            tag += len(calls)
            made = [gathered(model, call, number, own_keys) for call, number in zip(calls, tags, strict=True)]
            tasks = [
                one if call.cancelled is None else leaving(one, call.cancelled)
                for call, one in zip(calls, made, strict=True)
            ]
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await configured().writes.idle()
            rows = await Model.where(model)
            there = {row.tag for row in rows}
            assert len(rows) == len(there), "a row was written twice"
            for call, number, result in zip(calls, tags, results, strict=True):
                if isinstance(result, asyncio.CancelledError) and number not in there:
                    # Cancelled before its row was written: as if it had never been called.
                    continue
                try:
                    plain = await plainly(engine, model, call, number, plain_keys)
                except Exception as error:
                    plain = error
                if not isinstance(result, asyncio.CancelledError):
                    assert shown(result, model, names) == shown(plain, model, names), (call, result, plain)
                if call.kind == "create" and not isinstance(plain, Exception):
                    plain_keys.append(plain.id)
                    own_keys.append(next(row.id for row in rows if row.tag == number))
        async with AsyncSession(engine) as session:
            expected = [shown(row, model, names) for row in await session.scalars(select(model).order_by(model.tag))]
        assert [shown(row, model, names) for row in await Model.where(model, order_by=model.tag)] == expected
    finally:
        await Model.close()
        await engine.dispose()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(run=runs())
def test_it_is_as_if_each_call_had_been_made_alone_by_sqlalchemy(
    tmp_path_factory: pytest.TempPathFactory, kind: str, run: Run
) -> None:
    one, other = (url_of(kind, tmp_path_factory.mktemp("gather")) for _ in range(2))
    asyncio.run(compare((one, other), *run))
