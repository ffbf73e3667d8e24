"""A database that hangs instead of refusing: the messages wait, none is a dead letter, and all are stored once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from core.context import Context
from core.database.current import configured
from core.database.driver import connect
from core.database.fault import Fault, fault_of
from core.errors import DatabaseUnreachableError
from core.handling.failures import outage
from core.model import Model
from core.records.tables import metadata
from core.router import Router
from tests.support.black_hole import BlackHole
from tests.support.memory_worker import running
from tests.support.models import Meter, Plain
from tests.support.postgres import fetch, postgres
from tests.support.waiting import soon, until

pytestmark = pytest.mark.case(4)

LIMIT = 0.5
TIMEOUT = 6
"""Of the handlers, in seconds. The database hangs for longer."""
AWAY = 8
DELIVERIES = pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(connect, "CONNECT_TIMEOUT", LIMIT)


@pytest.fixture
def direct() -> str:
    """Return the URL of a database, past the black hole."""
    return postgres().new_database()


@pytest.fixture
async def hole(direct: str) -> AsyncIterator[BlackHole]:
    """Configure Model with the database behind a black hole, which passes everything on so far."""
    made = await BlackHole(postgres().folder / ".s.PGSQL.5432").start()
    name = direct.split("/")[3].partition("?")[0]
    Model.configure(f"postgresql+asyncpg://postgres:@127.0.0.1:{made.port}/{name}", statement_timeout=LIMIT)
    await configured().create_tables(Plain.metadata, metadata)
    yield made
    await Model.close()
    await made.stop()


def storing(delivery: Any) -> Router:
    router = Router()

    @router.on("t/<n>", delivery=delivery, timeout=TIMEOUT)
    async def store(context: Context[Any]) -> None:
        await Model.create(Meter, serial=str(context["payload"]))

    return router


async def stored(url: str) -> list[int]:
    return sorted(int(serial) for (serial,) in await fetch(url, "SELECT serial FROM meters"))


@DELIVERIES
async def test_messages_wait_while_the_network_swallows_everything(hole: BlackHole, direct: str, delivery: Any) -> None:
    async with running(storing(delivery), exactly_once=True) as worker:
        for number in range(10):
            await worker.send(f"t/{number}", b"%d" % number)
        await worker.settled()
        hole.swallow()
        for number in range(10, 50):
            await worker.send(f"t/{number}", b"%d" % number)
        await until(lambda: hole.swallowed)
        # Several attempts hang, also that of making a new connection.
        await asyncio.sleep(AWAY)
        assert worker.ledger.done == 10
        hole.mend()
        await soon(worker.settled())
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (50, 0)
    assert await stored(direct) == list(range(50))


@DELIVERIES
async def test_messages_wait_while_another_session_holds_the_table_locked(
    hole: BlackHole, direct: str, delivery: Any
) -> None:
    other = await asyncpg.connect(direct.replace("+asyncpg", ""))
    async with running(storing(delivery), exactly_once=True) as worker:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("LOCK TABLE meters")
        for number in range(50):
            await worker.send(f"t/{number}", b"%d" % number)
        await asyncio.sleep(AWAY)
        assert worker.ledger.done == 0
        await transaction.rollback()
        await soon(worker.settled())
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (50, 0)
    await other.close()
    assert await stored(direct) == list(range(50))


@pytest.mark.parametrize("returning", [True, False])
async def test_a_statement_that_hangs_is_the_infrastructures_fault_and_its_connection_thrown_away(
    hole: BlackHole, returning: bool
) -> None:
    await Model.create(Meter, serial="before")
    hole.swallow()
    with pytest.raises(DatabaseUnreachableError) as raised:
        await soon(Model.create_many(Meter, [{"serial": "lost"}], returning=returning), 10)
    assert fault_of(raised.value) is Fault.INFRASTRUCTURE
    hole.mend()
    # A connection that hung would answer no better now.
    await soon(Model.create_many(Meter, [{"serial": "after"}], returning=returning), 10)
    assert {meter.serial for meter in await Model.all(Meter)} == {"before", "after"}


async def test_a_commit_that_hangs_is_the_infrastructures_fault(hole: BlackHole) -> None:
    with pytest.raises(DatabaseUnreachableError):
        async with asyncio.timeout(10), Model.transaction():
            await Model.create(Meter, serial="lost")
            hole.swallow()
    hole.mend()
    assert await soon(Model.count(Meter), 10) == 0


async def test_a_timeout_of_the_handlers_own_is_its_own_and_stays_what_it_is(hole: BlackHole) -> None:
    with pytest.raises(TimeoutError) as raised:
        async with asyncio.timeout(LIMIT / 5), Model.session() as session:
            await session.execute(text("SELECT pg_sleep(10)"))
    assert fault_of(raised.value) is Fault.MESSAGE


async def test_the_server_cancels_a_statement_by_itself_and_keeps_a_shorter_limit(hole: BlackHole, direct: str) -> None:
    async with Model.session() as session:
        process = await session.scalar(text("SELECT pg_backend_pid()"))
        with pytest.raises(Exception, match="statement timeout") as raised:
            await session.execute(text("SELECT pg_sleep(10)"))
        assert fault_of(raised.value) is Fault.INFRASTRUCTURE
        await session.rollback()
        # The server answers, so that the connection is kept.
        assert await session.scalar(text("SELECT pg_backend_pid()")) == process
    await fetch(direct, "ALTER ROLE postgres SET statement_timeout = '300ms'")
    try:
        await configured().engine.dispose()
        async with Model.session() as session:
            assert await session.scalar(text("SHOW statement_timeout")) == "300ms"
    finally:
        await fetch(direct, "ALTER ROLE postgres RESET statement_timeout")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no TCP_USER_TIMEOUT")
async def test_the_system_watches_the_connections(hole: BlackHole) -> None:
    async with configured().engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        watched = driver._transport.get_extra_info("socket")
        assert watched.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert watched.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1000
