"""Sessions within transactions: they are a part of them, one at a time, in a handler and outside of one."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from core.context import Context
from core.database.current import configured
from core.handling.failures import outage
from core.model import Model
from core.records.tables import metadata
from core.retry import Retry
from core.router import Router
from tests.support.memory_worker import running
from tests.support.models import Meter, Plain
from tests.support.waiting import soon

pytestmark = pytest.mark.case(12)


@pytest.fixture(autouse=True)
async def tables(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.005)
    await configured().create_tables(Plain.metadata, metadata)


async def serials() -> list[str]:
    return [str(meter.serial) for meter in await Model.where(Meter, order_by=Meter.id)]


async def test_a_session_within_a_transaction_is_a_part_of_it() -> None:
    with pytest.raises(RuntimeError):
        async with Model.transaction():
            async with Model.session() as session:
                session.add(Meter(serial="a"))
                await session.commit()
            assert await serials() == ["a"]
            raise RuntimeError
    assert await serials() == []


async def test_what_a_session_within_a_transaction_does_not_commit_is_rolled_back_alone() -> None:
    async with Model.transaction() as outer:
        outer.add(Meter(serial="added before"))
        await Model.create(Meter, serial="created before")
        async with Model.session() as session:
            assert len((await session.scalars(select(Meter))).all()) == 2
            session.add(Meter(serial="committed"))
            await session.commit()
            session.add(Meter(serial="rolled back"))
            await session.flush()
            await session.rollback()
            await Model.create(Meter, serial="call in it")
            async with Model.transaction():
                await Model.create(Meter, serial="transaction in it")
                async with Model.session() as inner:
                    inner.add(Meter(serial="session in that"))
                    await inner.commit()
            await session.commit()
            session.add(Meter(serial="left open"))
        await Model.create(Meter, serial="created after")
    names = ["added before", "created before", "committed", "call in it", "transaction in it", "session in that"]
    assert await serials() == [*names, "created after"]


async def test_a_session_that_is_left_open_in_a_transaction_holds_up_nobody() -> None:
    async with Model.transaction():
        session = await Model.get_session()
        session.add(Meter(serial="a"))
        await session.commit()
        session.add(Meter(serial="b"))
        await session.flush()
    assert await soon(serials()) == ["a"]


@pytest.mark.parametrize("surrounded", [True, False])
async def test_tasks_with_a_session_each_take_turns(surrounded: bool) -> None:
    async def store(number: int) -> None:
        async with Model.session() as session:
            session.add(Meter(serial=f"s{number}"))
            await session.flush()
            await Model.create(Meter, serial=f"c{number}") if surrounded else None
            await session.commit()

    async def all_at_once() -> None:
        await asyncio.gather(*(store(number) for number in range(10)), *(Model.count(Meter) for _ in range(10)))

    if surrounded:
        async with Model.transaction():
            await soon(all_at_once())
    else:
        await soon(all_at_once())
    assert len(await serials()) == (20 if surrounded else 10)


async def test_calls_of_tasks_that_a_session_surrounds_take_turns_on_it() -> None:
    async with Model.transaction(), Model.session() as session:
        await soon(asyncio.gather(*(Model.create(Meter, serial=f"s{number}") for number in range(10))))
        await session.commit()
        await soon(asyncio.gather(*(Model.create(Meter, serial=f"t{number}") for number in range(10))))
    assert len(await serials()) == 10


async def test_a_session_that_another_task_opened_for_the_caller_is_its_own() -> None:
    async with Model.transaction():
        session = await asyncio.create_task(Model.get_session())
        await soon(Model.create(Meter, serial="in it"))
        await session.rollback()
        await session.close()
        await soon(Model.create(Meter, serial="beside"))
    assert await serials() == ["beside"]


async def test_a_second_session_while_the_first_is_open_is_a_savepoint_of_it() -> None:
    async with Model.transaction():
        async with Model.session() as first:
            first.add(Meter(serial="a"))
            async with Model.session() as second:
                second.add(Meter(serial="b"))
                await second.commit()
                second.add(Meter(serial="not committed"))
                await second.flush()
            async with Model.session() as third:
                third.add(Meter(serial="c"))
                await soon(Model.create(Meter, serial="call in it"))
                await third.commit()
            await first.commit()
        async with Model.session() as fourth:
            async with Model.session() as fifth:
                fifth.add(Meter(serial="d"))
                await fifth.commit()
            await fourth.rollback()
    assert await serials() == ["a", "b", "c", "call in it"]


async def test_tasks_of_a_session_that_open_one_each_take_turns() -> None:
    async def store(number: int) -> None:
        async with Model.session() as session:
            session.add(Meter(serial=f"s{number}"))
            await session.commit()

    async with Model.transaction(), Model.session() as session:
        await soon(asyncio.gather(*(store(number) for number in range(5))))
        await session.commit()
    assert len(await serials()) == 5


async def test_a_task_that_outlives_its_transaction_is_no_part_of_it() -> None:
    ended = asyncio.Event()

    async def late() -> None:
        async with Model.session() as session:
            session.add(Meter(serial="in time"))
            await session.commit()
        await ended.wait()
        async with Model.session() as session:
            session.add(Meter(serial="late"))
            await session.commit()

    async with Model.transaction():
        task = asyncio.create_task(late())
        await asyncio.sleep(0.2)
    ended.set()
    await soon(task)
    assert await serials() == ["in time", "late"]


# -- in handlers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_two_sessions_in_one_handler_wait_for_nobody(delivery: Literal["at_least_once", "exactly_once"]) -> None:
    router = Router()

    @router.on("t/<n>", delivery=delivery, timeout=60, retry=Retry(attempts=1))
    async def store(context: Context[Any]) -> None:
        async with Model.session() as first, Model.session() as second:
            first.add(Meter(serial=f"first {context['params']['n']}"))
            await first.flush()
            second.add(Meter(serial=f"second {context['params']['n']}"))
            await second.commit()
            await first.execute(text("SELECT 1"))
        await Model.create(Meter, serial=context["params"]["n"])

    async with running(router, exactly_once=True) as worker:
        for number in range(10):
            await worker.send(f"t/{number}")
        await soon(worker.settled(), 30)
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (10, 0)
    # The first one was never committed, and the second one is a savepoint of it.
    assert sorted(await serials()) == [str(number) for number in range(10)]


async def test_a_session_in_a_transaction_of_a_handler_commits_with_the_message() -> None:
    router = Router()
    runs: list[str] = []

    @router.on("t/<n>", delivery="exactly_once", retry=Retry(attempts=2, first=0.01))
    async def store(context: Context[Any]) -> None:
        name = context["params"]["n"]
        runs.append(name)
        async with Model.transaction(), Model.session() as session:
            session.add(Meter(serial=f"{name}.{runs.count(name)}"))
            await session.commit()
        if name == "3" and runs.count(name) == 1:
            raise ValueError("once")

    async with running(router, exactly_once=True) as worker:
        for number in range(10):
            await worker.send(f"t/{number}")
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (10, 0)
    assert sorted(serial.partition(".")[0] for serial in await serials()) == [str(number) for number in range(10)]


async def test_a_handler_whose_tasks_have_a_session_each_is_not_refused() -> None:
    router = Router()

    async def by_session(name: str) -> None:
        async with Model.session() as session:
            session.add(Meter(serial=name))
            await session.flush()
            await session.commit()

    @router.on("t/<n>", delivery="exactly_once")
    async def store(context: Context[Any]) -> None:
        name = context["params"]["n"]
        await asyncio.gather(by_session(f"{name} a"), by_session(f"{name} b"), Model.create(Meter, serial=f"{name} c"))

    async with running(router, exactly_once=True) as worker:
        for number in range(5):
            await worker.send(f"t/{number}")
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (5, 0)
    assert len(await serials()) == 15


async def test_a_refused_row_in_a_session_of_a_transaction_leaves_the_rest_standing() -> None:
    async with Model.transaction():
        await Model.create(Meter, serial="a")
        async with Model.session() as session:
            session.add(Meter(serial="a"))
            with pytest.raises(IntegrityError):
                await session.commit()
        await Model.create(Meter, serial="b")
    assert await serials() == ["a", "b"]
