"""Gathered calls give what single ones would: the same rows, results and errors, whatever fails and whoever leaves."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import Session

from core.database.current import configured
from core.database.engine import Database
from core.database.statements.gather import MAX_ROWS
from core.database.statements.upsert import upsert_of
from core.model import Model
from tests.database.conftest import there
from tests.support.models import Everything, Meter, MeterReading, Odd, Pair, Plain, Point, State, Truck


@pytest.fixture(autouse=True)
async def tables(database: str) -> None:
    await configured().create_tables(Plain.metadata, Odd.metadata)


async def test_calls_that_wait_together_go_out_together(statements: list[str]) -> None:
    rows = await asyncio.gather(*(Model.create(Meter, serial=f"s{n}", kwh=n / 2) for n in range(MAX_ROWS)))
    inserts = [one for one in statements if one.startswith("INSERT")]
    assert len(inserts) <= 3
    assert [row.serial for row in rows] == [f"s{n}" for n in range(MAX_ROWS)]
    assert [row.id for row in rows] == sorted(row.id for row in rows)
    assert {row.site for row in rows} == {"cellar"}
    assert all(row.created_at is not None for row in rows)
    statements.clear()
    found = await asyncio.gather(*(Model.find(Meter, row.id) for row in rows))
    assert [there(row).serial for row in found] == [row.serial for row in rows]
    assert sum(one.startswith("SELECT") for one in statements) <= 3


async def test_a_single_call_waits_for_nobody() -> None:
    meter = await asyncio.wait_for(Model.create(Meter, serial="a"), 5)
    assert there(await asyncio.wait_for(Model.find(Meter, meter.id), 5)).serial == "a"


async def test_only_the_caller_at_fault_sees_the_error() -> None:
    calls = [Model.create(Meter, serial=f"s{n % 90}") for n in range(100)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [Meter] * 90 + [IntegrityError] * 10
    assert await Model.count(Meter) == 90


async def test_values_that_the_driver_refuses_cost_their_row_alone() -> None:
    meter = await Model.create(Meter, serial="m")
    good = [Model.create(MeterReading, meter_id=meter.id, kwh=n) for n in range(10)]
    bad = Model.create(MeterReading, meter_id=meter.id, kwh=object())
    results = await asyncio.gather(*good[:5], bad, *good[5:], return_exceptions=True)
    assert isinstance(results[5], StatementError)
    assert [row.kwh for row in results if isinstance(row, MeterReading)] == list(range(10))


async def test_callers_that_leave_take_only_their_own_row_with_them() -> None:
    tasks = [asyncio.create_task(Model.create(Meter, serial=f"s{n}")) for n in range(200)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    stored = {meter.serial for meter in await Model.all(Meter)}
    for number, result in enumerate(results):
        if number % 2:
            assert isinstance(result, Meter)
            assert result.serial == f"s{number}"
            assert f"s{number}" in stored
        else:
            assert isinstance(result, asyncio.CancelledError)
    assert len(await Model.all(Meter)) == len(stored)


async def test_callers_of_one_row_get_instances_of_their_own() -> None:
    meter = await Model.create(Meter, serial="a")
    one, other = await asyncio.gather(Model.find(Meter, meter.id), Model.find(Meter, meter.id))
    assert one is not other
    assert there(one).serial == there(other).serial == "a"
    found = await asyncio.gather(Model.find(Meter, 99), Model.find(Meter, meter.id), Model.find(Meter, 98))
    assert list(found) != [None] * 3


async def test_composite_keys_and_keys_made_by_the_client_are_found() -> None:
    await asyncio.gather(*(Model.create(Pair, left=f"l{n}", right=n, note=None) for n in range(20)))
    found = await asyncio.gather(*(Model.find(Pair, (f"l{n}", n)) for n in range(25)))
    assert [row and row.right for row in found] == [*range(20), *[None] * 5]


def everything(number: int) -> dict[str, Any]:
    return {
        "state": State.ON if number % 2 else State.OFF,
        "price": Decimal(number) / 4,
        "raw": bytes([number]),
        "day": date(2026, 1, number + 1),
        "at": datetime(2026, 1, 2, 3, 4, number, tzinfo=UTC),
        "clock": time(1, 2, number),
        "lasted": timedelta(seconds=number),
        "data": {"n": number, "nothing": None},
    }


async def test_column_types_and_defaults_are_as_in_single_calls() -> None:
    given_id = uuid.uuid4()
    rows = await asyncio.gather(
        *(Model.create(Everything, **everything(n)) for n in range(10)),
        Model.create(Everything, id=given_id, **everything(10)),
    )
    assert rows[-1].id == given_id
    for number, row in enumerate(rows):
        values = everything(number)
        assert (row.state, row.price, row.raw, row.day) == (values["state"], values["price"], values["raw"], values["day"])
        assert (row.clock, row.lasted, row.data, row.on) == (values["clock"], values["lasted"], values["data"], True)
        assert isinstance(row.id, uuid.UUID)


async def test_none_means_the_default_as_it_does_for_an_instance() -> None:
    gathered = await Model.create(Meter, serial="a", site=None, kwh=None, id=None)
    async with Model.session() as session:
        single = Meter(serial="b", site=None, kwh=None, id=None)
        session.add(single)
        await session.commit()
        await session.refresh(single)
    assert (gathered.site, gathered.kwh) == (single.site, single.kwh) == ("cellar", None)


async def test_models_with_ways_of_their_own_keep_them() -> None:
    point = await Model.create(Point, x=1)
    assert (point.x, point.y) == (1, 0)
    truck = await Model.create(Truck, name="t", load=5.0)
    assert (truck.kind, truck.load) == ("truck", 5.0)
    odd = await Model.create(Odd, count=1, all="a", update="u", find=2)
    assert (odd.create, odd.find) == (7, 2)


async def test_gathered_rows_are_loaded_and_belong_to_no_session() -> None:
    meter = await Model.create(Meter, serial="a")
    assert Session.object_session(meter) is None
    assert meter.to_dict()["site"] == "cellar"


async def test_upserts_of_one_row_come_after_one_another() -> None:
    results = await asyncio.gather(
        *(Model.upsert(Meter, on=["serial"], serial=f"s{n % 7}", kwh=float(n)) for n in range(70))
    )
    assert [row.kwh for row in results] == [float(n) for n in range(70)]
    rows = await Model.where(Meter, order_by=Meter.serial)
    assert [row.kwh for row in rows] == [float(63 + n) for n in range(7)]
    # The rows were updated last: so their onupdate has run.
    assert all(row.changed_at is not None for row in rows)


async def test_updates_and_deletes_by_key_go_out_together(statements: list[str]) -> None:
    rows = await asyncio.gather(*(Model.create(Meter, serial=f"s{n}") for n in range(100)))
    statements.clear()
    changed = await asyncio.gather(*(Model.update(Meter, row.id, kwh=float(row.id)) for row in reversed(rows)))
    assert sum(one.startswith("UPDATE") for one in statements) <= 3
    assert [there(row).serial for row in changed] == [f"s{n}" for n in reversed(range(100))]
    assert all(row.kwh == row.id and row.changed_at is not None for row in map(there, changed))
    assert all(Session.object_session(row) is None for row in changed)
    statements.clear()
    gone = await asyncio.gather(*(Model.delete(Meter, row.id) for row in rows[:60]), Model.delete(Meter, 10_000))
    assert gone == [True] * 60 + [False]
    assert sum("SELECT meters" in one for one in statements) <= 3
    assert await Model.count(Meter) == 40


async def test_changes_of_one_row_come_after_one_another() -> None:
    meter = await Model.create(Meter, serial="a")
    results = await asyncio.gather(
        *(Model.update(Meter, meter.id, kwh=float(n)) for n in range(20)),
        Model.update(Meter, 999, kwh=0.0),
    )
    assert [there(row).kwh for row in results[:-1]] == [float(n) for n in range(20)]
    assert results[-1] is None
    assert there(await Model.find(Meter, meter.id)).kwh == 19.0
    assert await asyncio.gather(*(Model.delete(Meter, meter.id) for _ in range(3))) == [True, False, False]


async def test_an_update_that_cannot_be_costs_its_caller_alone() -> None:
    rows = await asyncio.gather(*(Model.create(Meter, serial=f"s{n}") for n in range(20)))
    results = await asyncio.gather(
        *(Model.update(Meter, row.id, serial="s0" if n == 7 else f"t{n}") for n, row in enumerate(rows) if n),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [Meter] * 6 + [IntegrityError] + [Meter] * 12
    assert sorted(await _serials()) == sorted(["s0", "s7", *(f"t{n}" for n in range(1, 20) if n != 7)])


async def test_a_gathered_delete_takes_what_belongs_to_the_row_with_it() -> None:
    meters = [await Model.create(Meter, serial=f"s{n}") for n in range(3)]
    await Model.create_many(MeterReading, [{"meter_id": meter.id, "kwh": 1.0} for meter in meters for _ in range(4)])
    assert await asyncio.gather(*(Model.delete(Meter, meter.id) for meter in meters[:2])) == [True, True]
    assert await Model.count(MeterReading) == 4


async def test_keys_of_several_columns_and_tables() -> None:
    await asyncio.gather(*(Model.create(Pair, left="l", right=n) for n in range(10)))
    await asyncio.gather(*(Model.update(Pair, ("l", n), note=f"n{n}") for n in range(10)))
    assert [row.note for row in await Model.where(Pair, order_by=Pair.right)] == [f"n{n}" for n in range(10)]
    trucks = [await Model.create(Truck, name=f"t{n}", load=float(n)) for n in range(4)]
    changed = await asyncio.gather(*(Model.update(Truck, truck.id, load=9.0, name="big") for truck in trucks))
    assert {(row.name, row.load) for row in map(there, changed)} == {("big", 9.0)}
    assert await asyncio.gather(*(Model.delete(Truck, truck.id) for truck in trucks)) == [True] * 4


async def test_workers_that_upsert_the_same_rows_in_different_orders_do_not_deadlock(url: str) -> None:
    other = Database(url)
    kind = upsert_of(Meter, ("serial", "kwh"), ("serial",), other.url.get_backend_name())

    async def run(database: Database, numbers: Iterable[int]) -> None:
        calls = (database.writes.call(kind, {"serial": f"s{n}", "kwh": 1.0}) for n in numbers)
        await asyncio.gather(*calls)

    for _ in range(10):
        await asyncio.gather(run(configured(), range(50)), run(other, reversed(range(50))))
    assert await Model.count(Meter) == 50
    await other.close()


async def test_within_a_transaction_nothing_is_gathered() -> None:
    with pytest.raises(RuntimeError):
        async with Model.transaction():
            await Model.create(Meter, serial="inner")
            await Model.upsert(Meter, on=["serial"], serial="inner", kwh=1.0)
            assert there(await Model.find(Meter, 1)).kwh == 1.0
            raise RuntimeError
    assert await Model.count(Meter) == 0


async def test_several_event_loops_use_one_model(tmp_path: Path) -> None:
    async def many(name: str) -> int:
        await asyncio.gather(*(Model.create(Meter, serial=f"{name}{n}") for n in range(20)))
        return len(await Model.all(Meter))

    await Model.close()
    Model.configure(f"sqlite+aiosqlite:///{tmp_path}/loops.db")
    await configured().create_tables(Plain.metadata)
    assert await many("a") == 20
    assert await asyncio.to_thread(asyncio.run, many("b")) == 40


async def test_the_database_goes_away_under_a_gather(database: str) -> None:
    if not database.startswith("postgresql"):
        pytest.skip("SQLite has no server")
    tasks = [asyncio.create_task(Model.create(Meter, serial=f"s{n}")) for n in range(100)]
    async with Model.session() as session:
        await session.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    # Connections that were terminated while nobody used them are still in the pool.
    await configured().engine.dispose()
    stored = set(await _serials())
    for number, result in enumerate(results):
        assert isinstance(result, Exception) or f"s{number}" in stored


async def _serials() -> list[str]:
    async with Model.session() as session:
        return list(await session.scalars(select(Meter.serial)))
