"""What the broker hangs up on is found and given up, and everything else gets through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pytest

from core.errors import HungUpError
from core.mqtt.publication import Publication
from core.session import session as module
from core.session.publishing import MAX_HANG_UPS, MAX_LOSSES, MAX_REMEMBERED
from core.session.session import Session
from core.transport.connect import connector
from core.transport.connection import Subscription
from tests.support.hostile_broker import HostileBroker
from tests.support.mosquitto import Mosquitto
from tests.support.recorder import Recorder
from tests.support.tcp_server import serving
from tests.support.waiting import soon, until
from tests.transport.conftest import options

pytestmark = pytest.mark.case(11)
VERSIONS = ["native 5", "aiomqtt 5", "aiomqtt 3.1.1"]
DEEP = "/".join(["deep"] * 300)


class Opened(Protocol):
    """Makes sessions with the broker at ``port``, which are stopped when the test ends."""

    def __call__(self, port: int, *subscriptions: Subscription) -> Session: ...


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def opened(version: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Opened]:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(module, "MAX_PAUSE", 0.2)
    made: list[Session] = []

    def make(port: int, *subscriptions: Subscription) -> Session:
        made.append(
            Session(connector(options(f"mqtt://127.0.0.1:{port}", version, clean_start=True)), "broker", subscriptions)
        )
        return made[-1]

    yield make
    for one in made:
        await one.stop()


def at(topic: str, number: int = 0) -> Publication:
    return Publication(topic, b"%d" % number, qos=1)


async def test_it_is_given_up_and_the_others_get_through(version: str, opened: Opened) -> None:
    broker = HostileBroker(version, hates=lambda topic: topic.startswith("bad"))
    async with serving(broker) as port:
        session = opened(port)
        session.start(Recorder())
        good = [asyncio.create_task(session.publish(at("good", number))) for number in range(50)]
        bad = [asyncio.create_task(session.publish(at(f"bad/{number}"))) for number in range(3)]
        good += [asyncio.create_task(session.publish(at("good", number))) for number in range(50, 100)]
        await soon(asyncio.gather(*good))
        ends = await soon(asyncio.gather(*bad, return_exceptions=True))
        for number, end in enumerate(ends):
            assert isinstance(end, HungUpError)
            assert f"hung up {MAX_HANG_UPS} times on the message on bad/{number} (1 bytes)" in str(end)
        assert {body for _, body in broker.published} == {b"%d" % number for number in range(100)}
        assert broker.hung_up <= MAX_LOSSES + 3 * MAX_HANG_UPS
        await soon(session.publish(at("good", 100)))


async def test_a_broker_that_says_why_is_asked_no_more(version: str, opened: Opened) -> None:
    if version.endswith("3.1.1"):
        pytest.skip("MQTT 3.1.1 has no reason codes in DISCONNECT")
    broker = HostileBroker(version, hates=lambda topic: topic == "bad", code=0x90)
    async with serving(broker) as port:
        session = opened(port)
        session.start(Recorder())
        with pytest.raises(HungUpError, match="the broker says: topic name invalid") as raised:
            await soon(session.publish(at("bad")))
        assert raised.value.reason_code == 0x90
        assert broker.hung_up == MAX_LOSSES + 1


async def test_a_broker_that_is_shutting_down_is_waited_for(version: str, opened: Opened) -> None:
    if version.endswith("3.1.1"):
        pytest.skip("MQTT 3.1.1 has no reason codes in DISCONNECT")
    patience = 10
    broker = HostileBroker(version, hates=lambda topic: broker.hung_up < patience, code=0x8B)
    async with serving(broker) as port:
        session = opened(port)
        session.start(Recorder())
        await soon(session.publish(at("t")))
        assert broker.hung_up == patience


async def test_a_broker_that_accepts_and_answers_nothing_is_waited_for(version: str, opened: Opened) -> None:
    """Each connection ends behind CONNACK, before a PINGRESP shows that the broker works."""

    class Broken(HostileBroker):
        async def _answer(self, first: int, rest: bytes, writer: asyncio.StreamWriter) -> bool:
            works = self.connections > 10 or first & 0xF0 == 0x10
            return works and await super()._answer(first, rest, writer)

    broker = Broken(version)
    async with serving(broker) as port:
        session = opened(port)
        session.start(Recorder())
        await soon(session.publish(at("t")))
        assert broker.connections > 10


async def test_a_caller_that_waits_no_longer_is_no_suspect_any_more(version: str, opened: Opened) -> None:
    broker = HostileBroker(version, hates=lambda topic: topic == "bad")
    async with serving(broker) as port:
        session = opened(port)
        session.start(Recorder())
        task = asyncio.create_task(session.publish(at("bad")))
        await until(lambda: broker.hung_up > MAX_LOSSES)
        task.cancel()
        await asyncio.wait([task])
        await soon(session.publish(at("good")))


async def test_a_caller_that_is_cut_off_again_and_again_hears_of_it_in_the_end(
    version: str, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than a caller has, so that none sees more than one connection end.
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.4)
    broker = HostileBroker(version, hates=lambda topic: topic == "bad")

    async def publish_for_as_long_as_it_takes() -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.15):
                    await session.publish(at("bad"))

    async with serving(broker) as port:
        session = opened(port)
        session.start(Recorder())
        with pytest.raises(HungUpError):
            await soon(publish_for_as_long_as_it_takes(), 30)
        await soon(session.publish(at("good")))


async def test_it_remembers_a_bounded_number_of_them(version: str, opened: Opened) -> None:
    broker = HostileBroker(version, hates=lambda topic: topic.startswith("bad"))
    async with serving(broker) as port:
        session = opened(port)
        session.start(Recorder())
        bad = [asyncio.create_task(session.publish(at(f"bad/{number}"))) for number in range(MAX_REMEMBERED + 10)]
        await until(lambda: session._publishing.searching)
        for task in bad:
            task.cancel()
        await asyncio.wait(bad)
        assert 0 < len(session._publishing._cut_off) <= MAX_REMEMBERED
        await soon(session.publish(at("good")))


async def test_mosquitto_hangs_up_on_300_levels(tmp_path: Path, version: str, opened: Opened) -> None:
    mosquitto = Mosquitto(tmp_path).start()
    heard = Recorder()
    listening = opened(mosquitto.port, Subscription("good/#"))
    listening.start(heard)
    await soon(listening.connected())
    session = opened(mosquitto.port)
    session.start(Recorder())
    tasks = [asyncio.create_task(session.publish(at(f"good/{number}", number))) for number in range(100)]
    with pytest.raises(HungUpError, match="deep/deep"):
        await soon(session.publish(at(DEEP)))
    await soon(asyncio.gather(*tasks))
    await until(lambda: {*heard.bodies} == {b"%d" % number for number in range(100)})
    await listening.stop()
    await session.stop()
    await asyncio.to_thread(mosquitto.stop)
