"""What a task waits for, at the moment when it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import select, text

from core.database import transaction
from core.database.current import configured
from core.database.unit_of_work import UnitOfWork
from core.handling.waiting import Awaited, awaited_by
from core.model import Model
from core.publisher import Publisher, publish, use_publisher
from core.request import request
from core.transport.brokers.memory import MemoryBroker
from tests.support.models import Meter, Plain
from tests.support.postgres import postgres
from tests.support.waiting import until


@pytest.fixture(autouse=True)
async def locked() -> AsyncIterator[None]:
    """Configure Model with a database whose table another session has locked."""
    Model.configure(postgres().new_database(), pool_size=2, max_overflow=0)
    await configured().create_tables(Plain.metadata)
    other = await configured().engine.connect()
    await other.execute(text("LOCK TABLE meters"))
    yield
    await other.rollback()
    await other.close()
    await Model.close()


async def create() -> None:
    await Model.create(Meter, serial="a")


async def in_a_transaction() -> None:
    async with Model.transaction():
        await Model.count(Meter)


async def in_a_session() -> None:
    async with Model.session() as session:
        await session.execute(select(Meter))


async def in_a_unit() -> None:
    async with configured().writing() as session:
        unit = UnitOfWork(session, savepoints=True)
        async with transaction.Part(unit):
            await create()


async def for_a_session_of_a_unit() -> None:
    async with configured().writing() as session:
        unit = UnitOfWork(session, savepoints=True)
        await unit.lock.acquire()
        async with transaction.Part(unit), Model.session():
            pass


async def for_a_connection() -> None:
    async with configured().engine.connect(), Model.session() as session:
        await session.execute(text("SELECT 1"))


async def gathered() -> None:
    await asyncio.gather(asyncio.sleep(60), create())


async def in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(60))
        group.create_task(create())


async def by_a_task() -> None:
    await asyncio.create_task(create())


async def waited_for() -> None:
    await asyncio.wait_for(create(), 60)


async def waited_for_among_others() -> None:
    await asyncio.wait([asyncio.create_task(create()), asyncio.create_task(asyncio.sleep(60))])


@pytest.mark.parametrize(
    "work",
    [
        *(create, in_a_transaction, in_a_session, in_a_unit, for_a_session_of_a_unit, for_a_connection, gathered),
        *(in_a_group, by_a_task, waited_for, waited_for_among_others),
    ],
)
async def test_it_waits_for_the_database(work: Callable[[], Awaitable[None]]) -> None:
    task = asyncio.ensure_future(work())
    # It may have steps before it, and it stays there.
    await until(lambda: awaited_by(task) is Awaited.DATABASE)
    await asyncio.sleep(0.2)
    assert awaited_by(task) is Awaited.DATABASE
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert awaited_by(task) is None


@pytest.fixture
async def broker() -> AsyncIterator[MemoryBroker]:
    """Publish to a broker in memory."""
    made = MemoryBroker()
    publisher = Publisher(made.connector("publisher", clean_start=True), "memory")
    use_publisher(publisher)
    yield made
    use_publisher(None)
    await publisher.stop()


async def publishes() -> None:
    await publish("t", "1", qos=1)


async def publishes_by_a_task() -> None:
    await asyncio.wait_for(asyncio.gather(publishes(), asyncio.sleep(60)), 60)


async def asks() -> None:
    await request("t", "1", timeout=60)


@pytest.mark.parametrize("work", [publishes, publishes_by_a_task, asks])
async def test_it_waits_for_the_broker(work: Callable[[], Awaitable[None]], broker: MemoryBroker) -> None:
    broker.up = False
    task = asyncio.ensure_future(work())
    await until(lambda: awaited_by(task) is Awaited.BROKER)
    await asyncio.sleep(0.2)
    assert awaited_by(task) is Awaited.BROKER
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert awaited_by(task) is None


async def test_it_waits_for_the_answer_of_a_device(broker: MemoryBroker) -> None:
    task = asyncio.ensure_future(request("t", "1", timeout=60))
    await until(lambda: len(broker.published) == 1)
    await asyncio.sleep(0.2)
    assert awaited_by(task) is None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def sleeps() -> None:
    await asyncio.sleep(60)


async def sleeps_in_a_session() -> None:
    async with Model.transaction(), Model.session() as session:
        await session.execute(text("SELECT 1"))
        await asyncio.sleep(60)


async def sleeps_beside_a_task_that_does_not_concern_it() -> None:
    task = asyncio.create_task(create())
    try:
        await asyncio.sleep(60)
    finally:
        task.cancel()


@pytest.mark.parametrize("work", [sleeps, sleeps_in_a_session, sleeps_beside_a_task_that_does_not_concern_it])
async def test_it_waits_for_something_else(work: Callable[[], Awaitable[None]]) -> None:
    task = asyncio.ensure_future(work())
    await asyncio.sleep(0.5)
    assert awaited_by(task) is None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
