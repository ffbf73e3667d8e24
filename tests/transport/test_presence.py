"""The will, on every transport; the status of a session that connects, loses its connection, and stops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.mqtt.publication import Publication
from core.session import session as module
from core.session.presence import Presence
from core.session.session import Session
from core.transport.brokers.memory import MemoryBroker
from core.transport.connect import connector
from core.transport.connection import Subscription
from core.transport.options import ConnectOptions
from tests.support.mosquitto import Mosquitto
from tests.support.proxy import Proxy
from tests.support.recorder import Recorder
from tests.support.waiting import until
from tests.transport.conftest import Broker, options

WILL = Publication("status/x", b"offline", qos=1, retain=True)


async def test_the_will_of_a_connection_that_breaks_is_published_and_retained(broker: Broker) -> None:
    _, heard = await broker.open("watcher", Subscription("status/#", 1))
    worker = await broker.open_to_be_cut("worker", will=WILL)
    assert heard.messages == []
    broker.cut(worker)
    await until(lambda: heard.messages)
    assert [(message.topic, message.body, message.qos) for message in heard.messages] == [("status/x", b"offline", 1)]
    _, later = await broker.open("later", Subscription("status/#", 1))
    await until(lambda: later.messages)
    assert [(message.body, message.retain) for message in later.messages] == [(b"offline", True)]
    await later_forgets(broker)


async def test_the_will_is_thrown_away_by_a_disconnect(broker: Broker) -> None:
    _, heard = await broker.open("watcher", Subscription("status/#", 1))
    worker, _ = await broker.open("worker", will=WILL)
    await worker.close()
    out, _ = await broker.open("out", clean_start=True)
    await out.publish(Publication("status/after", b"", qos=1))
    await until(lambda: heard.messages)
    await asyncio.sleep(0.05)
    assert [message.topic for message in heard.messages] == ["status/after"]


async def test_what_a_connection_publishes_comes_behind_the_will_of_the_one_that_it_takes_over(broker: Broker) -> None:
    _, heard = await broker.open("watcher", Subscription("status/#", 1))
    await broker.open("worker", will=WILL)
    again, _ = await broker.open("worker", number=2, will=WILL)
    await again.publish(Publication("status/x", b"online", qos=1, retain=True))
    await until(lambda: b"online" in heard.bodies)
    await asyncio.sleep(0.2)
    # MQTT 5, 3.1.2.5 asks for the will; Mosquitto 2.0.11 and rumqttd leave it out, which is as well.
    assert heard.bodies in ([b"offline", b"online"], [b"online"])
    await again.close()
    await later_forgets(broker)


async def later_forgets(broker: Broker) -> None:
    """One Mosquitto serves all tests, and keeps what is retained."""
    out, _ = await broker.open("out", clean_start=True)
    await out.publish(Publication("status/x", b"", qos=1, retain=True))


def statuses(heard: Recorder) -> list[str]:
    return [json.loads(message.body)["status"] for message in heard.messages if message.body]


@pytest.fixture
async def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Mosquitto, Recorder]]:
    """Give a Mosquitto, and what a watcher hears on its status topic."""
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.02)
    broker = Mosquitto(tmp_path).start()
    heard = Recorder()
    watcher = Session(connector(options(broker.url, clean_start=True)), broker.url, [Subscription("status/#", 1)])
    watcher.start(heard)
    await watcher.connected()
    yield broker, heard
    await watcher.stop()
    broker.stop()


@pytest.fixture(params=["native 5", "aiomqtt 5", "aiomqtt 3.1.1"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def with_status(chosen: ConnectOptions, *subscriptions: Subscription) -> Session:
    presence = Presence("status/w", chosen.client_id, "1.2.3")
    connect = connector(replace(chosen, will=presence.will()))
    return Session(connect, chosen.address, subscriptions, presence=presence)


async def test_the_status_says_who_is_online_since_when(watched: tuple[Mosquitto, Recorder], version: str) -> None:
    broker, heard = watched
    chosen = options(broker.url, version)
    began = datetime.now(UTC)
    session = with_status(chosen)
    session.start(Recorder())
    await until(lambda: heard.messages)
    online = json.loads(heard.messages[0].body)
    since = datetime.fromisoformat(online.pop("since"))
    assert online == {"status": "online", "client_id": chosen.client_id, "version": "1.2.3"}
    assert since.utcoffset() == timedelta(0)
    assert began - timedelta(seconds=1) < since <= datetime.now(UTC)
    assert heard.messages[0].qos == 1
    await session.stop()
    await until(lambda: len(heard.messages) == 2)
    offline = json.loads(heard.messages[1].body)
    assert datetime.fromisoformat(offline.pop("since")) >= since
    assert offline == {"status": "offline", "client_id": chosen.client_id, "version": "1.2.3"}


async def test_the_status_is_told_while_reading_is_paused(watched: tuple[Mosquitto, Recorder], version: str) -> None:
    broker, heard = watched
    session = with_status(options(broker.url, version), Subscription("t", 1))
    session.pause_reading()
    session.start(Recorder())
    await until(lambda: statuses(heard) == ["online"])
    await session.stop()
    await until(lambda: statuses(heard) == ["online", "offline"])


async def test_online_follows_the_will_of_a_connection_that_the_broker_still_believes_in(
    watched: tuple[Mosquitto, Recorder], version: str
) -> None:
    broker, heard = watched
    proxy = await Proxy(broker.port).start()
    session = with_status(options(f"mqtt://127.0.0.1:{proxy.port}", version))
    session.start(Recorder())
    await until(lambda: statuses(heard) == ["online"])
    proxy.cut_ours()
    await until(lambda: statuses(heard).count("online") == 2)
    await asyncio.sleep(0.1)
    assert statuses(heard)[-1] == "online"
    await session.stop()
    await until(lambda: statuses(heard)[-1] == "offline")
    await proxy.stop()


@pytest.mark.parametrize("version", ["native 5", "aiomqtt 5"])
async def test_a_refused_status_is_told_once_and_the_worker_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.02)
    (tmp_path / "acl").write_text("topic readwrite open/#\n")
    broker = Mosquitto(tmp_path, f"acl_file {tmp_path}/acl").start()
    session = with_status(options(broker.url, version), Subscription("open/#", 1))
    heard = Recorder()
    session.start(heard)
    await until(lambda: "no further status is sent on status/w" in caplog.text)
    await session.publish(Publication("open/x", b"x", qos=1))
    await until(lambda: heard.bodies == [b"x"])
    await asyncio.sleep(0.2)
    assert len(heard.connacks) <= 2
    assert caplog.text.count("no further status is sent") == 1
    await session.stop()
    broker.stop()


async def test_the_broker_in_memory_tells_it_too() -> None:
    memory = MemoryBroker()
    presence = Presence("status/w", "w", "1")
    session = Session(memory.connector("w", will=presence.will()), "memory", presence=presence)
    heard = Recorder()
    watcher = memory.connector("watcher")(heard, 1)
    await watcher.open()
    await watcher.subscribe([Subscription("status/#", 1)])
    session.start(Recorder())
    await session.connected()
    await session.stop()
    assert statuses(heard) == ["online", "offline"]
    await watcher.close()
