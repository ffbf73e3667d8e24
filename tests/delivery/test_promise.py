"""Faults between crash and poison: what is neither must lose nothing, and store nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from sqlalchemy import text

from core.context import Context
from core.database.current import configured
from core.errors import Reject
from core.handling.failures import outage
from core.model import Model
from core.records.dead_letter_table import DeadLetterTable
from core.records.tables import metadata
from core.retry import Retry
from core.router import Router
from tests.database.conftest import url_of
from tests.support.memory_worker import MemoryWorker, running
from tests.support.models import Meter, Plain
from tests.support.waiting import until

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession


@pytest.fixture(autouse=True)
async def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(outage, "MAX_PAUSE", 0.05)
    Model.configure(url_of("postgresql", tmp_path))
    await configured().create_tables(Plain.metadata, metadata)
    yield
    await Model.close()


@pytest.fixture
def router() -> Router:
    return Router()


async def run_sql(*statements: str) -> None:
    async with configured().begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def serials() -> list[str]:
    return sorted(str(meter.serial) for meter in await Model.all(Meter))


def storing(router: Router) -> None:
    @router.on("t/<n>", delivery="exactly_once", retry=Retry(attempts=2, first=0.001))
    async def store(context: Context[int]) -> None:
        await Model.create(Meter, serial=str(context["payload"]))


def refusing(code: str, when: str = "NEW.serial = '7'") -> tuple[str, str]:
    """Return what makes a trigger that refuses some rows with the SQLSTATE ``code``."""
    return (
        f"""CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN IF {when} THEN
        RAISE EXCEPTION 'refused' USING ERRCODE = '{code}'; END IF; RETURN NEW; END $$ LANGUAGE plpgsql""",
        "CREATE TRIGGER refuse BEFORE INSERT ON meters FOR EACH ROW EXECUTE FUNCTION refuse()",
    )


def ends(worker: MemoryWorker) -> tuple[int, int, int]:
    ledger = worker.ledger
    return ledger.done, ledger.dead_lettered, len(worker.broker.acknowledged)


@pytest.mark.case(1)
async def test_one_message_that_always_loses_costs_itself_alone(router: Router) -> None:
    storing(router)
    await run_sql(*refusing("40001"))
    async with running(router, exactly_once=True) as worker:
        for number in range(20):
            await worker.send(f"t/{number}", b"%d" % number)
        await until(lambda: worker.ledger.in_hand == 0, seconds=60)
        await worker.settled()
        assert ends(worker) == (19, 1, 20)
    assert await serials() == sorted(str(number) for number in range(20) if number != 7)


@pytest.mark.case(1)
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_one_value_of_a_list_that_always_loses_costs_its_message_alone(
    router: Router, delivery: Literal["at_least_once", "exactly_once"]
) -> None:
    @router.on("t/<n>", delivery=delivery, batch=50, retry=Retry(attempts=1))
    async def store(contexts: list[Context[int]]) -> None:
        await Model.create_many(Meter, [{"serial": str(context["payload"])} for context in contexts])

    await run_sql(*refusing("40001"))
    async with running(router, exactly_once=True) as worker:
        for number in range(20):
            await worker.send(f"t/{number}", b"%d" % number)
        # The others do not wait for the runs of the one that loses.
        await until(lambda: worker.ledger.done == 19, seconds=8)
        assert worker.ledger.dead_lettered == 0
        await until(lambda: worker.ledger.in_hand == 0, seconds=60)
        await worker.settled()
        assert ends(worker) == (19, 1, 20)
    assert await serials() == sorted(str(number) for number in range(20) if number != 7)


@pytest.mark.case(1)
async def test_a_table_that_is_locked_is_waited_for(router: Router) -> None:
    storing(router)
    await run_sql("ALTER ROLE postgres SET lock_timeout = '10ms'")
    try:
        await configured().engine.dispose()
        async with running(router, exactly_once=True) as worker:
            async with configured().begin() as connection:
                await connection.execute(text("LOCK TABLE meters IN ACCESS EXCLUSIVE MODE"))
                for number in range(30):
                    await worker.send(f"t/{number}", b"%d" % number)
                await asyncio.sleep(15)
                assert ends(worker) == (0, 0, 0)
            await until(lambda: worker.ledger.in_hand == 0, seconds=30)
            await worker.settled()
            assert ends(worker) == (30, 0, 30)
        assert len(await serials()) == 30
    finally:
        await run_sql("ALTER ROLE postgres RESET lock_timeout")


@pytest.mark.case(5)
async def test_the_order_of_a_topic_survives_the_halving(router: Router) -> None:
    order: list[int] = []

    @router.on("t/<n>", batch=500, order_by="n")
    async def store(contexts: list[Context[int]]) -> None:
        if any(context["payload"] == 6 for context in contexts):
            raise Reject("poison")
        order.extend(context["payload"] for context in contexts)

    async with running(router) as worker:
        for number in range(64):
            await worker.send(f"t/{number % 2}", b"%d" % number)
        await worker.settled()
        assert worker.ledger.dead_lettered == 1
    for topic in (0, 1):
        own = [number for number in order if number % 2 == topic]
        assert own == sorted(own)


@pytest.mark.case(5)
async def test_the_order_of_a_topic_survives_a_constraint_that_is_checked_at_commit(router: Router) -> None:
    await run_sql(
        "CREATE TABLE stored (id serial PRIMARY KEY, topic int, number int)",
        "CREATE TABLE allowed (number int PRIMARY KEY)",
        "INSERT INTO allowed SELECT generate_series(0, 63) EXCEPT SELECT 6",
        "ALTER TABLE stored ADD FOREIGN KEY (number) REFERENCES allowed DEFERRABLE INITIALLY DEFERRED",
    )

    @router.on("t/<int:n>", delivery="exactly_once", retry=Retry(attempts=1))
    async def store(context: Context[int]) -> None:
        async with Model.transaction() as session:
            await session.execute(
                text("INSERT INTO stored (topic, number) VALUES (:topic, :number)"),
                {"topic": context["params"]["n"], "number": context["payload"]},
            )

    async with running(router, exactly_once=True) as worker:
        for number in range(64):
            await worker.send(f"t/{number % 2}", b"%d" % number)
        await until(lambda: worker.ledger.in_hand == 0, seconds=60)
        await worker.settled()
        assert ends(worker) == (63, 1, 64)
    async with configured().begin() as connection:
        rows = (await connection.execute(text("SELECT topic, number FROM stored ORDER BY id"))).all()
    for topic in (0, 1):
        own = [row.number for row in rows if row.topic == topic]
        assert own == [number for number in range(64) if number % 2 == topic and number != 6]


@pytest.mark.case(3)
async def test_a_commit_that_goes_on_after_its_answer_was_lost_is_waited_for(router: Router) -> None:
    storing(router)
    await run_sql(
        "CREATE FUNCTION slow() RETURNS trigger AS $$ BEGIN PERFORM pg_sleep(1); RETURN NULL; END $$ LANGUAGE plpgsql",
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON routemq_processed DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    async with running(router, exactly_once=True) as worker:
        mode = worker.engine.exactly_once
        assert mode is not None
        begin, cuts = mode.begin, [True]

        @asynccontextmanager
        async def losing() -> AsyncIterator[AsyncSession]:
            async with begin() as session:
                yield session
                if cuts:
                    cuts.pop()
                    # The line is cut while the server is at the commit, which it finishes all the same.
                    raw = await (await session.connection()).get_raw_connection()
                    assert raw.driver_connection is not None
                    asyncio.get_running_loop().call_later(0.2, raw.driver_connection.terminate)

        mode.begin = losing
        for number in range(5):
            await worker.send(f"t/{number}", b"%d" % number)
        await until(lambda: worker.ledger.in_hand == 0, seconds=30)
        await worker.settled()
        assert ends(worker) == (5, 0, 5)
        assert not cuts
    assert await serials() == ["0", "1", "2", "3", "4"]


@pytest.mark.case(3)
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_a_dead_letter_whose_commit_goes_on_after_its_answer_was_lost_is_one(
    router: Router, delivery: Literal["at_least_once", "exactly_once"]
) -> None:
    @router.on("t/<n>", delivery=delivery)
    async def refuse(context: Context[int]) -> None:
        raise Reject("never")

    await run_sql(
        "CREATE FUNCTION slow() RETURNS trigger AS $$ BEGIN PERFORM pg_sleep(1); RETURN NULL; END $$ LANGUAGE plpgsql",
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON routemq_dead_letters DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    cuts = [True]

    @asynccontextmanager
    async def losing() -> AsyncIterator[AsyncConnection]:
        async with configured().begin() as connection:
            yield connection
            if cuts:
                cuts.pop()
                raw = await connection.get_raw_connection()
                assert raw.driver_connection is not None
                asyncio.get_running_loop().call_later(0.2, raw.driver_connection.terminate)

    exactly_once = delivery == "exactly_once"
    async with running(router, exactly_once=exactly_once, dead_letters=DeadLetterTable(losing, 1000)) as worker:
        await worker.send("t/1", b"1")
        await until(lambda: worker.ledger.in_hand == 0, seconds=30)
        await worker.settled()
        assert ends(worker) == (0, 1, 1)
        assert not cuts
        assert not worker.last_resort.letters
    async with configured().begin() as connection:
        rows = await connection.execute(text("SELECT count(*) FROM routemq_dead_letters"))
        assert rows.scalar_one() == 1
        records = await connection.execute(text("SELECT count(*) FROM routemq_processed WHERE length(packets) > 0"))
        assert records.scalar_one() == int(exactly_once)
