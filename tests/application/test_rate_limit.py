"""Rate limits that several workers count together, on a real Redis server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import rate_limit
from core.errors import CounterUnreachableError
from tests.support.mosquitto import Mosquitto
from tests.support.redis_server import RedisServer, require_redis
from tests.support.waiting import until
from tests.support.worker import Projects, Publishers

ROUTER = """
from core.rate_limit import RateLimit
from core.router import Router

router = Router()

async def tell(context, next_handler):
    await next_handler(context)
    print("through the limit or dropped:", context["topic"])

limit = RateLimit("10/minute", key="device_id", excess="drop", name="per device")

@router.on("{topic}/<device_id>", qos=1, middleware=[tell, limit])
async def handle(context):
    print("let through:", context["topic"])
"""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis").start()
    yield server
    server.stop()


async def test_two_workers_share_a_limit_and_messages_wait_while_redis_is_away(
    project: Projects, mosquitto: Mosquitto, publisher: Publishers, redis: RedisServer
) -> None:
    # The same module in both, on topics of their own, so that it is known who gets what.
    workers = []
    for topic in ("a", "b"):
        one = project({"limited": ROUTER.format(topic=topic)}, MQTT_URL=mosquitto.url, RATE_LIMIT_URL=redis.url)
        workers.append(await one.set(MQTT_CLIENT_ID=f"worker-{topic}", LOG_LEVEL="DEBUG").start().ready())
    client = await publisher(mosquitto.url)
    for _ in range(8):
        for topic in ("a/1", "b/1"):
            await client.publish(topic, "1", qos=1)
    await until(lambda: sum(worker.output.count("or dropped:") for worker in workers) == 16)
    assert sum(worker.output.count("let through:") for worker in workers) == 10
    assert all("let through:" in worker.output for worker in workers)

    redis.stop()
    await client.publish("a/2", "1", qos=1)
    await workers[0].says("does not count")
    assert "let through: a/2" not in workers[0].output
    redis.start()
    await workers[0].says("let through: a/2")
    for worker in workers:
        assert await worker.stop() == 0
        assert "Traceback" not in worker.output
        assert "0 in hand" in worker.output.rpartition("stopped: ")[2]


async def test_a_server_that_hangs_is_away_before_handlers_time_out() -> None:
    require_redis()
    with socket.create_server(("127.0.0.1", 0)) as server:
        rate_limit.configure(f"redis://127.0.0.1:{server.getsockname()[1]}")
        try:
            async with asyncio.timeout(6):
                with pytest.raises(CounterUnreachableError, match=r"127\.0\.0\.1.*does not count"):
                    await rate_limit.check()
        finally:
            await rate_limit.close()


async def test_the_doctor_asks_the_server(project: Projects, redis: RedisServer) -> None:
    one = project(RATE_LIMIT_URL=redis.url)
    assert f"counted on {redis.url}, which answers" in (await one.command("doctor"))[1]
    redis.stop()
    code, said = await one.command("doctor")
    assert (code, "does not count: ConnectionError" in said) == (1, True)


async def test_a_redis_url_that_cannot_be_is_told_in_one_line(project: Projects) -> None:
    one = project({"limited": ROUTER.format(topic="a")}, RATE_LIMIT_URL="redis://me:secret@host:port")
    code, said = await one.command()
    assert code == 1
    assert "RATE_LIMIT_URL=redis://me:***@host:port" in said
    assert "secret" not in said
    assert "Traceback" not in said
