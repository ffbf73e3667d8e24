"""delivery="exactly_once" under fire: each number is stored once, whatever is killed."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest

from core.session.session import Session
from core.transport.connect import connector
from core.transport.connection import Subscription
from tests.faults.conftest import Streaming, a_moment
from tests.faults.test_worker import POISONED, UNIQUE, Poisoned
from tests.support.mosquitto import Mosquitto
from tests.support.postgres import Postgres, fetch, postgres
from tests.support.recorder import Recorder
from tests.support.stream import ROUTER, SOAK, grows
from tests.support.waiting import until
from tests.transport.conftest import options

ONCE = ROUTER.replace('"n/<source>"', '"n/<source>", delivery="exactly_once"')


def url_of(database: str) -> dict[str, Any]:
    return {"DATABASE_URL": postgres().new_database()} if database == "PostgreSQL" else {}


@pytest.mark.parametrize("database", ["PostgreSQL", "SQLite"])
async def test_the_worker_is_killed_at_random_moments(streaming: Streaming, mosquitto: Mosquitto, database: str) -> None:
    times = 50 if SOAK else 4
    stream = streaming(mosquitto.url, router=ONCE, rate=1500, **url_of(database))
    worker = await stream.project.start().ready()
    stream.start()
    for _ in range(times):
        await grows(stream, 20)
        await a_moment(0.1, 0.8)
        worker.kill()
        worker = await stream.project.start().ready()
    await streaming.account(stream, worker, f"exactly once: worker killed, {database}", times, repeats=False)


@pytest.mark.parametrize("how", ["immediate", "kill"])
async def test_postgresql_dies(
    streaming: Streaming, mosquitto: Mosquitto, own_postgres: Postgres, how: Literal["immediate", "kill"]
) -> None:
    times = 10 if SOAK else 2
    stream = streaming(mosquitto.url, router=ONCE, rate=1500, DATABASE_URL=own_postgres.new_database())
    worker = await stream.project.start().ready()
    stream.start()
    for _ in range(times):
        await grows(stream, 200)
        await asyncio.to_thread(own_postgres.kill if how == "kill" else lambda: own_postgres.stop(how))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(own_postgres.start)
        await grows(stream, 200)
    found = await streaming.account(stream, worker, f"exactly once: PostgreSQL {how}", times, repeats=False)
    assert found.dead == 0


async def test_the_connection_is_cut(streaming: Streaming, mosquitto: Mosquitto) -> None:
    times = 20 if SOAK else 3
    stream = streaming(mosquitto.url, router=ONCE, rate=1500, DATABASE_URL=postgres().new_database())
    worker = await stream.project.start().ready()
    stream.start()
    for _ in range(times):
        await grows(stream, 200)
        await asyncio.to_thread(mosquitto.stop)
        await asyncio.to_thread(mosquitto.start)
    await grows(stream, 200)
    # The stream's own connection was cut too: what it sent again is not the worker's repeat.
    await streaming.account(stream, worker, "exactly once: Mosquitto restarted", times)


async def test_poison_and_kills(streaming: Streaming, mosquitto: Mosquitto) -> None:
    times = 20 if SOAK else 2
    router = POISONED.replace("CODEC", ', delivery="exactly_once"')
    stream = streaming(mosquitto.url, router=router, rate=500, RETRY_ATTEMPTS=2, RETRY_FIRST=0.01, kind=Poisoned)
    (stream.project.folder / "app" / "models" / "number.py").write_text(UNIQUE)
    worker = await stream.project.start().ready()
    stream.start()
    for _ in range(times):
        await grows(stream, 100)
        await a_moment(0.1, 0.8)
        worker.kill()
        worker = await stream.project.start().ready(300)
    await until(lambda: min(stream.sent.values()) >= 25, 60)
    found = await streaming.account(stream, worker, "exactly once: poison 5 % and kills", times, repeats=False)
    poisonous = {(s, n) for s, sent in stream.sent.items() for n in range(sent) if n % 20 == 19}
    assert found.dead == len(poisonous)
    rows = stream.project.rows("SELECT source, number FROM numbers")
    assert set(rows) == {(s, n) for s, sent in stream.sent.items() for n in range(sent)} - poisonous


REPLYING = ONCE + '    await context["publish"](f"r/{context[\'params\'][\'source\']}", context["payload"], qos=1)\n'


async def test_replies_of_the_outbox_survive_kills_in_order(streaming: Streaming, mosquitto: Mosquitto) -> None:
    times = 50 if SOAK else 3
    url = postgres().new_database()
    heard = Recorder()
    listener = Session(connector(options(mosquitto.url, transport="native")), "replies", [Subscription("r/#", 1)])
    done = 0

    async def acknowledging() -> None:
        nonlocal done
        while True:
            fresh = heard.messages[done:]
            done += len(fresh)
            listener.acknowledge(fresh)
            await asyncio.sleep(0.01)

    listener.start(heard)
    await listener.connected()
    task = asyncio.create_task(acknowledging())
    stream = streaming(mosquitto.url, router=REPLYING, rate=800, DATABASE_URL=url)
    worker = await stream.project.start().ready()
    stream.start()
    for _ in range(times):
        await grows(stream, 20)
        await a_moment(0.1, 0.8)
        worker.kill()
        worker = await stream.project.start().ready()
    await stream.stop()
    await stream.settled()

    async def empty() -> bool:
        return await fetch(url, "SELECT count(*) FROM routemq_outbox") == [(0,)]

    await until(empty, 60)
    await streaming.account(stream, worker, "exactly once: outbox, worker killed", times, repeats=False)

    def all_replied() -> bool:
        return len({(m.topic, m.body) for m in heard.messages}) == sum(stream.sent.values())

    await until(all_replied, 30)
    task.cancel()
    await listener.stop()
    for source, sent in stream.sent.items():
        bodies = [m.body for m in heard.messages if m.topic == f"r/{source}"]
        first_seen = list(dict.fromkeys(bodies))
        assert first_seen == [b'{"number":%d}' % number for number in range(sent)]
