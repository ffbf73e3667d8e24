"""A pooler that gives each transaction any of its connections to the server: PgBouncer, and a model of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import make_url

from core.context import Context
from core.database.current import configured
from core.database.driver.pooler import changes_connections
from core.database.pool import PoolOptions
from core.handling.failures import outage
from core.model import Model
from core.records.tables import metadata
from core.router import Router
from tests.support.memory_worker import running
from tests.support.models import Meter, Plain
from tests.support.pooler import PgBouncer, TransactionPooler
from tests.support.postgres import fetch, postgres
from tests.support.worker import Projects

pytestmark = pytest.mark.case(8)

NUMBER = 300
MISSING = pytest.mark.skipif(PgBouncer.PROGRAM is None, reason="PgBouncer is not installed (apt-get install pgbouncer)")


@pytest.fixture
def direct() -> str:
    """Return the URL of a database, past the pooler."""
    return postgres().new_database()


@pytest.fixture(params=[TransactionPooler, pytest.param(PgBouncer, marks=MISSING)])
async def pooler(request: pytest.FixtureRequest, direct: str) -> AsyncIterator[TransactionPooler | PgBouncer]:
    made: TransactionPooler | PgBouncer = request.param(postgres().folder, direct.split("/")[3].partition("?")[0])
    await made.start()
    yield made
    await Model.close()
    await made.stop()


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_with_the_setting_all_messages_are_stored_once(
    pooler: TransactionPooler | PgBouncer, direct: str, delivery: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.005)
    Model.configure(pooler.url, pooler="transaction")
    await configured().create_tables(Plain.metadata, metadata)
    router = Router()

    @router.on("t/<n>", delivery=delivery)
    async def store(context: Context[Any]) -> None:
        number = context["payload"]
        if number % 3 == 0:
            await Model.create(Meter, serial=str(number))
        elif number % 3 == 1:
            await Model.create_many(Meter, [{"serial": str(number)}], returning=False)
        else:
            async with Model.session() as session:
                session.add(Meter(serial=str(number), kwh=float(number)))
                await session.commit()
        assert await Model.exists(Meter, serial=str(number))

    async with running(router, exactly_once=True) as worker:
        for number in range(NUMBER):
            await worker.send(f"t/{number}", b"%d" % number)
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (NUMBER, 0)
        assert not worker.last_resort.letters
    rows = await fetch(direct, "SELECT serial FROM meters")
    assert sorted(int(serial) for (serial,) in rows) == list(range(NUMBER))


async def test_without_the_setting_the_start_and_doctor_say_what_to_set(
    pooler: TransactionPooler | PgBouncer, project: Projects
) -> None:
    one = project(DATABASE_URL=pooler.url, DB_AUTO_MIGRATE="true")
    worker = one.start()
    assert await worker.ended() == 1
    assert "Set DB_POOLER=transaction" in worker.output
    code, said = await one.command("doctor")
    assert code == 1
    assert "Set DB_POOLER=transaction" in said


async def test_with_the_setting_the_application_starts_and_migrates(
    pooler: TransactionPooler | PgBouncer, project: Projects
) -> None:
    one = project(DATABASE_URL=pooler.url, DB_AUTO_MIGRATE="true", DB_POOLER="transaction")
    worker = await one.start().ready()
    assert await worker.stop() == 0
    code, said = await one.command("doctor")
    assert code == 0, said
    assert "no pooler" not in said


async def test_what_is_no_such_pooler_is_not_taken_for_one(direct: str, project: Projects) -> None:
    assert not await changes_connections(make_url(direct), PoolOptions())
    one = project(DATABASE_URL=direct, DB_AUTO_MIGRATE="true", DB_POOLER="transaction")
    _, said = await one.command("doctor")
    assert "has no pooler before it" in said
