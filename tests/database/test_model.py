"""Model's calls, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import cast

import pytest
from sqlalchemy import inspect, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, selectinload
from sqlalchemy.pool import QueuePool

from core.database.current import configured
from core.errors import DatabaseDisabledError, ModelError
from core.model import Base, Model, Page
from tests.database.conftest import there
from tests.support.models import Everything, Meter, MeterReading, Odd, Pair, Plain, Point, State, Truck, Vehicle
from tests.support.waiting import until


@pytest.fixture(autouse=True)
async def tables(database: str) -> None:
    await configured().create_tables(Plain.metadata, Base.metadata)


async def test_create_gives_a_committed_detached_and_fully_loaded_row() -> None:
    meter = await Model.create(Meter, serial="a", kwh=1.5)
    assert inspect(meter).detached
    assert not inspect(meter).unloaded - {"readings"}
    assert (meter.id, meter.site) == (1, "cellar")
    assert meter.created_at is not None
    found = there(await Model.find(Meter, 1))
    assert found is not meter
    assert (found.serial, found.kwh, found.created_at) == ("a", 1.5, meter.created_at)


async def test_every_type_of_column_comes_back_and_goes_into_json() -> None:
    values = {
        "state": State.ON,
        "price": Decimal("12.30"),
        "raw": b"\x00\xff",
        "day": date(2026, 2, 3),
        "at": datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC),
        "clock": time(7, 8, 9),
        "lasted": timedelta(minutes=1.5),
        "data": {"nested": [1, 2.5, None, "x"]},
    }
    made = await Model.create(Everything, **values)
    found = there(await Model.find(Everything, made.id))
    shown = found.to_dict()
    assert "essay" not in shown
    assert json.loads(json.dumps(shown)) == shown
    assert shown["id"] == str(made.id)
    assert uuid.UUID(shown["id"])
    assert shown["state"] == "on"
    assert shown["price"] == "12.30"
    assert shown["raw"] == "AP8="
    assert shown["day"] == "2026-02-03"
    assert shown["at"].startswith("2026-02-03T04:05:06")
    assert shown["clock"] == "07:08:09"
    assert shown["lasted"] == 90.0
    assert shown["data"] == values["data"]
    assert shown["on"] is True


async def test_columns_may_have_any_name_also_in_children_of_model() -> None:
    odd = await Model.create(Odd, count=3, all="x", update="y", find=4, session="s", where="w", delete=True)
    assert (odd.count, odd.create) == (3, 7)
    assert await Model.count(Odd, count=3, update="y") == 1
    (found,) = await Model.where(Odd, cast("InstrumentedAttribute[int]", Odd.find) == 4)
    assert found.to_dict()["all"] == "x"
    changed = there(await Model.update(Odd, odd.id, count=9, delete=False))
    assert (changed.count, changed.delete) == (9, False)
    assert len(await Model.all(Odd)) == 1
    assert await Model.delete(Odd, odd.id)
    assert not await Model.exists(Odd)


async def test_dataclass_models_and_joined_table_inheritance() -> None:
    point = await Model.create(Point, x=1)
    assert (point.id, point.y) == (1, 0)
    truck = await Model.create(Truck, name="T", load=7.5)
    (as_vehicle,) = await Model.all(Vehicle)
    assert isinstance(as_vehicle, Truck)
    assert there(await Model.find(Truck, truck.id)).load == 7.5


async def test_create_many_keeps_the_order_takes_instances_and_is_one_transaction() -> None:
    rows = await Model.create_many(Meter, [{"serial": f"s{n}"} for n in range(1200)] + [Meter(serial="last")])
    assert [row.serial for row in rows[:3]] == ["s0", "s1", "s2"]
    assert rows[-1].serial == "last"
    assert all(row.id and row.site == "cellar" for row in rows)
    with pytest.raises(IntegrityError):
        await Model.create_many(Meter, [{"serial": "new"}, {"serial": "last"}])
    assert await Model.count(Meter) == 1201
    assert await Model.create_many(Meter, []) == []


async def test_where_first_count_exists() -> None:
    await Model.create_many(Meter, [{"serial": f"s{n}", "kwh": n} for n in range(10)])
    assert [m.kwh for m in await Model.where(Meter, Meter.kwh > 6, order_by=Meter.kwh.desc())] == [9, 8, 7]
    assert [m.kwh for m in await Model.where(Meter, order_by=[Meter.site, Meter.kwh], limit=2, offset=3)] == [3, 4]
    assert there(await Model.first(Meter, Meter.kwh < 5, order_by=Meter.kwh.desc())).kwh == 4
    assert await Model.first(Meter, serial="none") is None
    assert await Model.count(Meter, Meter.kwh >= 5, site="cellar") == 5
    assert await Model.exists(Meter, serial="s3")
    assert not await Model.exists(Meter, Meter.kwh > 99)


async def test_update_gives_the_fresh_row_with_its_onupdate() -> None:
    meter = await Model.create(Meter, serial="a", kwh=1)
    changed = there(await Model.update(Meter, meter.id, kwh=2))
    assert changed.kwh == 2
    assert changed.changed_at is not None
    assert inspect(changed).detached
    assert await Model.update(Meter, 99, kwh=2) is None


async def test_upsert_inserts_then_changes_and_leaves_other_columns() -> None:
    first = await Model.upsert(Meter, on=["serial"], serial="a", kwh=1)
    assert (first.site, first.changed_at) == ("cellar", None)
    await Model.update(Meter, first.id, site="roof")
    second = await Model.upsert(Meter, on=["serial"], serial="a", kwh=2)
    assert (second.id, second.kwh, second.site) == (first.id, 2, "roof")
    assert second.changed_at is not None
    assert (await Model.upsert(Pair, left="l", right=1, note="n")).note == "n"
    assert (await Model.upsert(Pair, left="l", right=1)).note == "n"
    await asyncio.gather(*(Model.upsert(Meter, on=["serial"], serial="a", kwh=n) for n in range(20)))
    assert await Model.count(Meter) == 1


async def test_delete_cascades_as_the_model_says() -> None:
    meter = await Model.create(Meter, serial="a")
    await Model.create_many(MeterReading, [{"meter_id": meter.id, "kwh": n} for n in range(3)])
    assert await Model.delete(Meter, meter.id) is True
    assert await Model.delete(Meter, meter.id) is False
    assert await Model.count(MeterReading) == 0


async def test_composite_keys() -> None:
    await Model.create(Pair, left="l", right=1)
    assert there(await Model.find(Pair, ("l", 1))).left == "l"
    assert await Model.find(Pair, ("l", 2)) is None
    assert await Model.delete(Pair, ("l", 1))


async def test_pages() -> None:
    await Model.create_many(Meter, [{"serial": f"s{n:02}"} for n in range(25)])
    page = await Model.paginate(Meter, page=3, per_page=10)
    assert ([m.serial for m in page.items], page.total, page.total_pages) == (["s20", "s21", "s22", "s23", "s24"], 25, 3)
    beyond = await Model.paginate(Meter, page=9, per_page=10, order_by=Meter.serial)
    assert (beyond.items, beyond.total) == ([], 25)
    assert (await Model.paginate(Meter, serial="none")).total_pages == 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Model.create(Meter, seral="x"), "Meter has no column 'seral'. Did you mean 'serial'"),
        (lambda: Model.update(Meter, 1, colour="x"), "Meter has no column 'colour'. Its columns are id, serial"),
        (lambda: Model.where(Meter, seral="x"), "Did you mean 'serial'"),
        (lambda: Model.upsert(Meter, on=["serial"], kwh=1), "finds the row by 'serial', which is not among"),
        (lambda: Model.upsert(Meter, id=1, readings=[]), "Meter.readings is not a column"),
        (lambda: Model.upsert(Truck, id=1), "one table. Truck has 2"),
        (lambda: Model.find(dict, 1), "dict is not a model"),
        (lambda: Model.find(Meter(serial="x"), 1), "is not a class"),  # type: ignore[arg-type]
        (lambda: Model.find(Pair, "l"), r"the primary key of Pair is a tuple \(left, right\), not 'l'"),
        (lambda: Model.find(Pair, ("l", 1, 2)), "is a tuple"),
        (lambda: Model.find(Meter, (1, 2)), r"is one value, id, not \(1, 2\)"),
        (lambda: Model.create_many(Meter, [Pair(left="x", right=1)]), "takes dictionaries and instances of it"),
        (lambda: Model.paginate(Meter, page=0), "page=0"),
        (lambda: Model.create(Point, z=1), "Point has no column 'z'"),
        (lambda: Model.create(Point), "Point cannot be made of nothing"),
    ],
)
async def test_misuse_is_told_in_one_line(call: Callable[[], Awaitable[object]], said: str) -> None:
    with pytest.raises(ModelError, match=said) as raised:
        await call()
    assert "\n" not in str(raised.value)


async def test_two_hundred_at_once_and_sessions_beside_them() -> None:
    async def by_session(number: int) -> None:
        session = await Model.get_session()
        try:
            session.add(Meter(serial=f"session {number}"))
            await session.commit()
        finally:
            await session.close()

    calls = [Model.create(Meter, serial=f"call {n}") for n in range(200)]
    await asyncio.gather(*calls, *(by_session(n) for n in range(100)))
    assert await Model.count(Meter) == 300


async def test_a_call_within_an_open_session_does_not_wait_for_it() -> None:
    async with Model.session() as session:
        await session.execute(select(Meter))
        await asyncio.wait_for(Model.create(Meter, serial="beside"), 5)


async def test_calls_in_a_transaction_join_it_also_from_tasks() -> None:
    async with Model.transaction() as session:
        await asyncio.gather(*(Model.create(Meter, serial=f"s{n}") for n in range(10)))
        assert await Model.count(Meter) == 10
        assert len((await session.scalars(select(Meter))).all()) == 10
    assert await Model.count(Meter) == 10
    with pytest.raises(RuntimeError):
        async with Model.transaction():
            await Model.create(Meter, serial="lost")
            await Model.update(Meter, 1, kwh=99)
            raise RuntimeError
    assert await Model.count(Meter) == 10
    assert there(await Model.find(Meter, 1)).kwh is None


async def test_an_error_caught_within_a_transaction_leaves_the_rest_standing() -> None:
    async with Model.transaction():
        await Model.create(Meter, serial="a")
        with pytest.raises(IntegrityError):
            await Model.create(Meter, serial="a")
        await Model.create(Meter, serial="b")
    assert await Model.count(Meter) == 2


async def test_a_transaction_in_a_transaction_is_a_savepoint() -> None:
    async with Model.transaction():
        await Model.create(Meter, serial="outer")
        with pytest.raises(RuntimeError):
            async with Model.transaction():
                await Model.create(Meter, serial="inner")
                raise RuntimeError
    assert [m.serial for m in await Model.all(Meter)] == ["outer"]


async def test_a_task_that_outlives_its_transaction_has_calls_of_its_own() -> None:
    go = asyncio.Event()

    async def later() -> None:
        await go.wait()
        await Model.create(Meter, serial="later")

    async with Model.transaction():
        task = asyncio.create_task(later())
        await asyncio.sleep(0)
    go.set()
    await task
    assert await Model.exists(Meter, serial="later")


async def test_a_cancelled_call_gives_its_connection_back() -> None:
    for delay in (0, 0.001, 0.003, 0.01):
        tasks = [asyncio.create_task(Model.create(Meter, serial=f"{delay} {n}")) for n in range(20)]
        await asyncio.sleep(delay)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    # What was gathered goes on without those who left.
    pool = configured().engine.pool
    assert isinstance(pool, QueuePool)
    await until(lambda: pool.checkedout() == 0)
    await asyncio.gather(*(Model.create(Meter, serial=f"after {n}") for n in range(50)))


async def test_relationships_load_in_a_session_and_stay_usable() -> None:
    meter = await Model.create(Meter, serial="a")
    await Model.create_many(MeterReading, [{"meter_id": meter.id, "kwh": n} for n in range(3)])
    async with Model.session() as session:
        loaded = (await session.scalars(select(Meter).options(selectinload(Meter.readings)))).one()
    assert [reading.kwh for reading in loaded.readings] == [0, 1, 2]


async def test_tables_can_be_created_by_many_at_once(url: str) -> None:
    await Model.close()
    Model.configure(url)
    await asyncio.gather(*(configured().create_tables(Plain.metadata) for _ in range(8)))
    assert await Model.count(Meter) == 0


async def test_without_a_database_reading_finds_nothing_and_says_so_once_and_writing_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await Model.close()
    assert Model._is_enabled is False
    for _ in range(3):
        assert await Model.get_session() is None
        assert await Model.find(Meter, 1) is None
        assert await Model.all(Meter) == []
        assert await Model.first(Meter) is None
        assert await Model.count(Meter) == 0
        assert await Model.exists(Meter) is False
        assert await Model.paginate(Meter) == Page([], 0, 1, 100)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(set(said)) == 6
    for call in (
        lambda: Model.create(Meter, serial="x"),
        lambda: Model.create_many(Meter, [{"serial": "x"}]),
        lambda: Model.update(Meter, 1, kwh=1),
        lambda: Model.upsert(Meter, id=1),
        lambda: Model.delete(Meter, 1),
        Model.ping,
    ):
        with pytest.raises(DatabaseDisabledError, match="DATABASE_URL"):
            await call()
