"""A second worker with the same client identifier, started while the first one commits: each message once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from core.context import Context
from core.database.current import configured
from core.database.engine import Database
from core.delivery.engine import Engine, EngineOptions
from core.errors import Reject, SessionTakenOverError
from core.model import Model
from core.mqtt.publication import Publication
from core.publisher import Publisher
from core.records.dead_letter_table import DeadLetterTable
from core.records.session_hold import SessionRecord, SessionTable
from core.records.tables import metadata
from core.retry import Retry
from core.router import Router
from core.session.session import Session
from core.transport.brokers.memory import MemoryBroker
from tests.database.conftest import url_of
from tests.support.models import Meter, Plain
from tests.support.waiting import soon, until


@pytest.fixture(params=["sqlite", "postgresql"], autouse=True)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    url = url_of(request.param, tmp_path)
    Model.configure(url)
    await configured().create_tables(Plain.metadata, metadata)
    yield url
    await Model.close()


class Process:
    """What a worker's process is made of, with connections of its own to the database at ``url``."""

    def __init__(self, broker: MemoryBroker, url: str, handler: Callable[[Context[int]], Awaitable[None]]) -> None:
        self.router = router = Router()
        router.on("t/<n>", delivery="exactly_once")(handler)
        router.freeze()
        self.database = database = Database(url)
        self.record = SessionRecord(SessionTable(database.begin), "worker", "memory")
        self.publisher = Publisher(broker.connector("publisher", clean_start=True), "memory")
        self.session = Session(broker.connector("worker"), "memory", router.subscriptions(), hold=self.record)
        self.engine = Engine(
            EngineOptions(
                router=router,
                link=self.session,
                outgoing=self.publisher,
                dead_letters=DeadLetterTable(database.begin, 1000),
                last_resort=DeadLetterTable(database.begin, 1000),
                database=database,
                client_id="worker",
                broker="memory",
                owner=self.record.owner,
                retry=Retry(attempts=1),
            )
        )

    async def load(self) -> None:
        """Take the session and read what was committed in it, as the application does before it connects."""
        await self.record.take([subscription.topic_filter for subscription in self.router.subscriptions()])
        await self.engine.load()

    def start(self) -> asyncio.Task[None]:
        self.engine.start()
        return self.session.start(self.engine.consumer)

    async def stop(self) -> None:
        hurry = asyncio.Event()
        hurry.set()
        await self.engine.finish(hurry, 5)
        await self.session.stop()
        await self.engine.stop()
        await self.publisher.stop()
        await self.database.close()


async def count(table: str) -> int:
    async with Model.session() as session:
        return int((await session.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())


async def create(context: Context[int]) -> None:
    await Model.create(Meter, serial=str(context["payload"]))


async def test_who_takes_the_session_waits_for_the_commit_under_way(database: str) -> None:
    broker, created = MemoryBroker(), asyncio.Event()
    is_sqlite = configured().is_sqlite

    async def slow(context: Context[int]) -> None:
        await create(context)
        created.set()
        await asyncio.sleep(0.7 if is_sqlite else 0)

    if not is_sqlite:
        async with configured().begin() as connection:
            await connection.execute(
                text(
                    "CREATE FUNCTION wait() RETURNS trigger AS $$ BEGIN PERFORM pg_sleep(0.7); RETURN NEW; END $$ "
                    "LANGUAGE plpgsql"
                )
            )
            await connection.execute(
                text(
                    "CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON meters DEFERRABLE INITIALLY DEFERRED "
                    "FOR EACH ROW EXECUTE FUNCTION wait()"
                )
            )

    async def commits() -> bool:
        return is_sqlite or bool(await count("pg_stat_activity WHERE wait_event = 'PgSleep'"))

    first, second = Process(broker, database, slow), Process(broker, database, create)
    await first.load()
    ended = first.start()
    await first.session.connected()
    broker.publish(Publication("t/1", b"1", 1))
    await soon(created.wait())
    await until(commits)
    await second.load()
    second.start()
    with pytest.raises(SessionTakenOverError, match="MQTT_CLIENT_ID"):
        await soon(ended)
    await until(lambda: broker.acknowledged)
    await until(lambda: not second.engine.ledger.in_hand)
    await first.stop()
    await second.stop()
    assert (await count("meters"), await count("routemq_dead_letters")) == (1, 0)


@pytest.mark.parametrize("table", ["meters", "routemq_dead_letters"])
@pytest.mark.parametrize("connected", [True, False])
async def test_who_has_lost_the_session_commits_nothing(database: str, table: str, connected: bool) -> None:
    broker, go, waits = MemoryBroker(), asyncio.Event(), asyncio.Event()

    async def handle(context: Context[int]) -> None:
        if table != "meters":
            raise Reject("it says nothing")
        await create(context)

    async def late(context: Context[int]) -> None:
        waits.set()
        await go.wait()
        await handle(context)

    first, second = Process(broker, database, late), Process(broker, database, handle)
    await first.load()
    ended = first.start()
    await first.session.connected()
    broker.publish(Publication("t/1", b"1", 1))
    await soon(waits.wait())
    await second.load()
    if connected:
        second.start()
        await until(lambda: broker.acknowledged)
    go.set()
    # Also where no broker has told the first one, since the second has not connected yet.
    with pytest.raises(SessionTakenOverError, match="MQTT_CLIENT_ID"):
        await soon(ended)
    if not connected:
        assert not broker.acknowledged
        assert await count(table) == 0
        second.start()
        await until(lambda: broker.acknowledged)
    await asyncio.sleep(0.1)
    assert await count(table) == 1
    assert not first.engine.ledger.done + first.engine.ledger.dead_lettered
    await first.stop()
    await second.stop()
    assert await count(table) == 1


async def test_a_process_does_not_write_over_the_one_that_took_its_session(database: str) -> None:
    begin = configured().begin
    first, second = (SessionRecord(SessionTable(begin), "worker", "memory") for _ in range(2))
    await first.take(["x"])
    await second.take(["y"])
    await first.subscribed()
    assert await second.is_held()
    assert not await first.is_held()
    await second.identified("trusted")
    assert (await SessionTable(begin).read("worker", "memory")) == second._remembered
