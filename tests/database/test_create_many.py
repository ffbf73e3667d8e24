"""Rows in bulk: with what comes back, and without."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError

from core.database.current import configured
from core.model import Model
from tests.database.test_gather import everything
from tests.support.models import Everything, Meter, Odd, Pair, Plain, Point, Truck


@pytest.fixture(autouse=True)
async def tables(database: str) -> None:
    await configured().create_tables(Plain.metadata, Odd.metadata)


@pytest.mark.parametrize("number", [0, 1, 1200])
async def test_rows_come_back_in_order(number: int) -> None:
    rows = await Model.create_many(Meter, [{"serial": f"s{n}", "kwh": n} for n in range(number)])
    assert [row.serial for row in rows] == [f"s{n}" for n in range(number)]
    assert {row.site for row in rows} <= {"cellar"}
    assert await Model.count(Meter) == number


@pytest.mark.parametrize("number", [0, 1, 1200])
async def test_without_returning_they_are_stored_just_the_same(number: int) -> None:
    given = [{"serial": f"s{n}", "kwh": n, "site": None} for n in range(number)]
    assert await Model.create_many(Meter, given, returning=False) is None  # type: ignore[func-returns-value]
    rows = await Model.where(Meter, order_by=Meter.id)
    assert [(row.serial, row.kwh, row.site) for row in rows] == [(f"s{n}", float(n), "cellar") for n in range(number)]
    assert all(row.created_at is not None for row in rows)


@pytest.mark.parametrize("returning", [True, False])
async def test_column_types_and_defaults(returning: bool) -> None:
    await Model.create_many(Everything, [everything(n) for n in range(5)], returning=returning)
    rows = {row.raw: row for row in await Model.all(Everything)}
    for number in range(5):
        values = everything(number)
        row = rows[values["raw"]]
        for name in ("state", "price", "day", "clock", "lasted", "data"):
            assert getattr(row, name) == values[name]
        assert row.on is True


@pytest.mark.parametrize("returning", [True, False])
async def test_one_that_violates_a_constraint_leaves_none(returning: bool) -> None:
    with pytest.raises(IntegrityError):
        await Model.create_many(Meter, [{"serial": "a"}, {"serial": "b"}, {"serial": "a"}], returning=returning)
    assert await Model.count(Meter) == 0


@pytest.mark.parametrize("returning", [True, False])
async def test_rows_of_different_columns_and_instances_and_models_of_their_own(returning: bool) -> None:
    rows = [{"serial": "a"}, {"serial": "b", "kwh": 1.0}, Meter(serial="c")]
    await Model.create_many(Meter, rows, returning=returning)
    await Model.create_many(Point, [{"x": 1}, Point(x=2)], returning=returning)
    await Model.create_many(Truck, [{"name": "t", "load": 1.0}], returning=returning)
    await Model.create_many(Pair, [{"left": "l", "right": n, "note": None} for n in range(3)], returning=returning)
    counts = [await Model.count(model) for model in (Meter, Point, Truck, Pair)]
    assert counts == [3, 2, 1, 3]


@pytest.mark.parametrize("returning", [True, False])
async def test_within_a_transaction_they_are_a_part_of_it(returning: bool) -> None:
    with pytest.raises(RuntimeError):
        async with Model.transaction():
            await Model.create_many(Meter, [{"serial": "a"}], returning=returning)
            assert await Model.count(Meter) == 1
            with pytest.raises(IntegrityError):
                await Model.create_many(Meter, [{"serial": "b"}, {"serial": "a"}], returning=returning)
            await Model.create_many(Meter, [{"serial": "c"}], returning=returning)
            assert await Model.count(Meter) == 2
            raise RuntimeError
    assert await Model.count(Meter) == 0


async def test_one_that_is_cut_off_leaves_all_or_nothing() -> None:
    rows = [{"serial": f"s{n}"} for n in range(3000)]
    counts = set()
    for turns in range(0, 60, 3):
        task = asyncio.create_task(Model.create_many(Meter, rows, returning=False))
        await asyncio.sleep(turns / 1000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        counts.add(await Model.count(Meter))
        async with Model.session() as session:
            await session.execute(delete(Meter))
            await session.commit()
    assert counts <= {0, 3000}
    assert 0 in counts
