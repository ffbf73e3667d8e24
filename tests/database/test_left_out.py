"""Rows that a trigger leaves out: every way of inserting says so, and costs the other rows nothing that it should not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Column, Enum, Integer, MetaData, String, delete, func, text
from sqlalchemy.orm import Mapped, mapped_column, registry
from sqlalchemy.orm.exc import FlushError

from core.context import Context
from core.database.current import configured
from core.errors import RowLeftOutError
from core.model import Model
from core.records.tables import metadata
from core.router import Router
from tests.support.memory_worker import running

pytestmark = pytest.mark.case(12)

_registry = registry()


@_registry.mapped
class Numbered:
    """Goes to PostgreSQL as arrays, and by COPY."""

    __tablename__ = "numbered"
    id = Column(Integer, primary_key=True)
    name = Column(String)


@_registry.mapped
class Named:
    """Has a constructor, so that its rows are inserted as instances, with keys of their own."""

    __tablename__ = "named"
    name: Mapped[str] = mapped_column(String, primary_key=True)

    def __init__(self, name: str) -> None:
        self.name = name


@_registry.mapped
class Counted:
    """Has a constructor too, and a key that the database makes."""

    __tablename__ = "counted"
    id = Column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String)

    def __init__(self, name: str) -> None:
        self.name = name


@_registry.mapped
class Lettered:
    """An array cannot hold its enumeration."""

    __tablename__ = "lettered"
    id = Column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(Enum("a", "b", "c", "x", "y", name="letters"))


@_registry.mapped
class Computed:
    """COPY cannot compute its default."""

    __tablename__ = "computed"
    id = Column(Integer, primary_key=True)
    name = Column(String)
    twice = Column(String, default=func.upper("x"))


@_registry.mapped
class Keyed:
    """For upsert."""

    __tablename__ = "keyed"
    name = Column(String, primary_key=True)
    value = Column(Integer)


MODELS: Sequence[Any] = (Numbered, Named, Counted, Lettered, Computed, Keyed)
TABLES: MetaData = _registry.metadata


@pytest.fixture(autouse=True)
async def tables(database: str) -> None:
    """Make tables with a trigger that leaves out every row whose name is b."""
    await configured().create_tables(TABLES, metadata)
    async with Model.session() as session:
        if database.startswith("postgresql"):
            await session.execute(
                text(
                    "CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS "
                    "$$ BEGIN IF NEW.name = 'b' THEN RETURN NULL; END IF; RETURN NEW; END $$"
                )
            )
        for table in TABLES.tables:
            when = "FOR EACH ROW EXECUTE FUNCTION leave_out()"
            if database.startswith("sqlite"):
                when = "WHEN NEW.name = 'b' BEGIN SELECT RAISE(IGNORE); END"
            await session.execute(text(f"CREATE TRIGGER t_{table} BEFORE INSERT ON {table} {when}"))
        await session.commit()


async def names(model: Any) -> list[str]:
    return sorted(row.name for row in await Model.all(model))


@pytest.mark.parametrize("model", MODELS)
async def test_create_says_so(model: Any) -> None:
    with pytest.raises((RowLeftOutError, FlushError), match="trigger"):
        await Model.create(model, name="b")
    async with Model.transaction():
        with pytest.raises((RowLeftOutError, FlushError), match="trigger"):
            await Model.create(model, name="b")
    made = await asyncio.gather(*(Model.create(model, name=letter) for letter in "abc"), return_exceptions=True)
    assert [isinstance(one, RowLeftOutError | FlushError) for one in made] == [False, True, False]
    assert await names(model) == ["a", "c"]


@pytest.mark.parametrize("model", MODELS)
async def test_create_many_says_so_and_inserts_none(model: Any) -> None:
    async def create(letters: str) -> None:
        rows = [model(name=letter) if instances else {"name": letter} for letter in letters]
        await Model.create_many(model, rows, returning=returning)

    for returning, instances, letters, surrounded in product((True, False), (True, False), ("b", "abc"), (True, False)):
        async with Model.transaction() if surrounded else nullcontext():
            with pytest.raises((RowLeftOutError, FlushError), match="trigger"):
                await create(letters)
            await create("xy")
        assert await names(model) == ["x", "y"], (returning, instances, letters, surrounded)
        async with Model.session() as session:
            await session.execute(delete(model))
            await session.commit()


async def test_upsert_says_so() -> None:
    with pytest.raises(RowLeftOutError, match="trigger"):
        await Model.upsert(Keyed, name="b", value=1)
    made = await asyncio.gather(*(Model.upsert(Keyed, name=one, value=1) for one in "abc"), return_exceptions=True)
    assert [isinstance(one, RowLeftOutError) for one in made] == [False, True, False]
    assert await names(Keyed) == ["a", "c"]


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_a_list_that_copies_rows_is_halved_until_the_row_is_found(delivery: Any) -> None:
    router = Router()
    lists: list[int] = []

    @router.on("t/<n>", delivery=delivery, batch=50)
    async def store(contexts: list[Context[Any]]) -> None:
        lists.append(len(contexts))
        await Model.create_many(Numbered, [{"name": context["payload"]["name"]} for context in contexts], returning=False)

    async with running(router, exactly_once=True) as worker:
        for number in range(60):
            await worker.send(f"t/{number}", b'{"name": "%s"}' % (b"b" if number == 33 else b"n%d" % number))
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (59, 1)
    assert await names(Numbered) == sorted(f"n{number}" for number in range(60) if number != 33)
    assert max(lists) > 10
