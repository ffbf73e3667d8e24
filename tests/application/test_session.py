"""The session over restarts, and between two processes."""

from __future__ import annotations

import pytest

from tests.support.mosquitto import Mosquitto
from tests.support.waiting import until
from tests.support.worker import Projects, Publishers


def router(*topics: str) -> dict[str, str]:
    lines = [
        "from core.router import Router",
        "router = Router()",
        "async def store(context):",
        "    print('got', context['topic'])",
    ]
    return {"some": "\n".join([*lines, *(f"router.on({topic!r}, store, codec='raw')" for topic in topics)]) + "\n"}


@pytest.mark.parametrize("database", ["sqlite+aiosqlite:///storage/routemq.db", ""])
@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_messages_of_a_route_that_is_gone_do_not_come(
    project: Projects, mosquitto: Mosquitto, publisher: Publishers, database: str, version: str
) -> None:
    one = project(router("old/+", "kept/+"), {}, MQTT_URL=mosquitto.url, DATABASE_URL=database, MQTT_VERSION=version)
    worker = await one.start().ready()
    assert await worker.stop() == 0
    (one.folder / "app" / "routers" / "some.py").write_text(router("kept/+", "new/+")["some"])
    worker = await one.start().ready()
    assert "unsubscribed topic filters that no route wants any more: old/+" in worker.output
    out = await publisher(mosquitto.url)
    for topic in ("old/1", "kept/1", "new/1"):
        await out.publish(topic, b"x", qos=1)
    await worker.says("got new/1")
    await worker.says("got kept/1")
    assert await worker.stop() == 0
    assert "stopped: 2 received, 2 done, 0 in hand" in worker.output
    worker = await one.start().ready()
    assert "unsubscribed" not in worker.output


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("database", ["sqlite+aiosqlite:///storage/routemq.db", ""])
async def test_a_second_process_with_the_same_client_identifier_takes_over_and_the_first_ends(
    project: Projects, mosquitto: Mosquitto, version: str, database: str
) -> None:
    one = project(router("t"), {}, MQTT_URL=mosquitto.url, MQTT_VERSION=version, DATABASE_URL=database)
    first = await one.start().ready()
    second = await one.start().ready()
    assert await first.ended(20) == 1
    assert "another client with the same client identifier took over the session" in first.output
    assert "MQTT_CLIENT_ID" in first.output
    assert "Traceback" not in first.output
    await until(lambda: second.process.poll() is None)
    assert "lost" not in second.output
    assert await second.stop() == 0
