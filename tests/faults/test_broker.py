"""The broker and the network go away in mid-stream."""

from __future__ import annotations

import asyncio
from functools import partial

from tests.faults.conftest import Streaming
from tests.support.mosquitto import Mosquitto
from tests.support.postgres import postgres
from tests.support.proxy import Proxy
from tests.support.stream import ROUTER, SOAK, Stream, grows
from tests.support.waiting import until


async def test_mosquitto_restarts(streaming: Streaming, mosquitto: Mosquitto) -> None:
    times = 10 if SOAK else 2
    stream = streaming(mosquitto.url, DATABASE_URL=postgres().new_database())
    worker = await stream.project.start().ready()
    stream.start()
    for _ in range(times):
        await grows(stream, 100)
        await asyncio.to_thread(mosquitto.stop)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(mosquitto.start)
    await grows(stream, 100)
    found = await streaming.account(stream, worker, "Mosquitto restarted", times)
    assert found.dead == 0


def more_than(stream: Stream, sent: int) -> bool:
    return sum(stream.sent.values()) > sent


async def test_mosquitto_is_killed(streaming: Streaming, mosquitto: Mosquitto) -> None:
    # Mosquitto saves its queues once a second: what it acknowledged since is lost with it, whoever consumes. So the
    # publishers pause for longer than that before, while the worker goes on with what they left.
    times = 5 if SOAK else 1
    slow = ROUTER.replace("    await Model", "    await asyncio.sleep(0.1)\n    await Model")
    stream = streaming(mosquitto.url, router=slow, rate=2000, DATABASE_URL=postgres().new_database())
    worker = await stream.project.start().ready()
    stream.start()
    for _ in range(times):
        enough = sum(stream.sent.values()) + 1500
        await until(partial(more_than, stream, enough), 60)
        await stream.pause()
        await asyncio.sleep(2.5)
        account = await stream.account()
        assert account.lost > 50, "the worker was through already"
        await asyncio.to_thread(mosquitto.kill)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(mosquitto.start)
        stream.resume()
    await grows(stream, 100)
    found = await streaming.account(stream, worker, "Mosquitto killed", times)
    assert found.dead == 0


async def test_mosquitto_is_frozen_for_longer_than_the_keep_alive(streaming: Streaming, mosquitto: Mosquitto) -> None:
    times = 3 if SOAK else 1
    stream = streaming(mosquitto.url, DATABASE_URL=postgres().new_database())
    worker = await stream.project.start().ready()
    stream.start()
    for _ in range(times):
        await grows(stream, 100)
        mosquitto.freeze()
        await worker.says("did not answer a PINGREQ")
        await asyncio.sleep(1)
        mosquitto.thaw()
        await grows(stream, 100)
    await streaming.account(stream, worker, "Mosquitto frozen", times)


async def test_the_connection_is_cut_every_second(streaming: Streaming, mosquitto: Mosquitto) -> None:
    times = 60 if SOAK else 5
    proxy = await Proxy(mosquitto.port).start()
    stream = streaming(f"mqtt://127.0.0.1:{proxy.port}", publish_to=mosquitto.url, DATABASE_URL=postgres().new_database())
    worker = await stream.project.start().ready()
    stream.start()
    for _ in range(times):
        await asyncio.sleep(1)
        proxy.cut()
    await grows(stream, 100)
    found = await streaming.account(stream, worker, "connection cut", times)
    assert found.dead == 0
    await proxy.stop()
