"""One delivery each, on brokers that send a copy per subscription."""

from __future__ import annotations

import asyncio

import pytest

from core.mqtt.message import Message
from core.routing.overlaps import Copies
from core.transport.connection import Subscription
from tests.application.conftest import mosquitto, project, publisher  # noqa: F401 - fixtures
from tests.support.mosquitto import Mosquitto
from tests.support.worker import Projects, Publishers

ROUTER = """
from core.router import Router

router = Router()

async def seen(context):
    print("seen", context["topic"], flush=True)

router.on("a/+/c", seen, codec="raw", name="one")
router.on("a/b/+", seen, codec="raw", name="two")
router.on("+/b/c", seen, codec="raw", name="three")
"""
SUBSCRIPTIONS = [Subscription("a/+/c", 1, 7), Subscription("a/b/+", 1, 5), Subscription("x", 1)]


def message(topic: str, *identifiers: int) -> Message:
    return Message(topic, b"", 1, 1, 1, {"subscription_identifier": list(identifiers)} if identifiers else None)


def test_of_the_copies_one_is_handled() -> None:
    copies = Copies(SUBSCRIPTIONS)
    assert [copies.is_further(message("a/b/c", identifier)) for identifier in (7, 5)] == [False, True]
    assert not copies.is_further(message("a/b/x", 5))
    assert not copies.is_further(message("a/x/c", 7))


def test_a_single_copy_and_one_without_or_with_an_unknown_identifier_is_handled() -> None:
    copies = Copies(SUBSCRIPTIONS)
    for one in (message("a/b/c", 7, 5), message("a/b/c", 5, 7), message("a/b/c"), message("a/b/c", 99)):
        assert not copies.is_further(one)


def test_what_waited_for_a_filter_that_was_there_before_is_handled() -> None:
    copies = Copies(SUBSCRIPTIONS, {"a/b/+"})
    assert [copies.is_further(message("a/b/c", identifier)) for identifier in (7, 5)] == [True, False]


def test_without_overlaps_there_is_nothing_to_look_at() -> None:
    assert not Copies([Subscription("a", 1)])


@pytest.mark.parametrize(("kind", "version"), [("mosquitto", "5"), ("mosquitto", "3.1.1"), ("embedded", "5")])
async def test_overlapping_routes_get_each_message_once(
    project: Projects,  # noqa: F811
    mosquitto: Mosquitto,  # noqa: F811
    publisher: Publishers,  # noqa: F811
    kind: str,
    version: str,
) -> None:
    one = project({"some": ROUTER}, {}, MQTT_VERSION=version)
    if kind == "mosquitto":
        one.set(MQTT_URL=mosquitto.url)
    worker = await one.start().ready()
    out = await publisher(one)
    for _ in range(50):
        await out.publish("a/b/c", b"x", qos=1)
    for topic in ("a/x/c", "a/b/x", "x/b/c"):
        await out.publish(topic, b"x", qos=1)
    await worker.says("seen x/b/c")
    await asyncio.sleep(0.3)
    assert await worker.stop() == 0
    assert worker.output.count("seen a/b/c") == 50
    assert worker.output.count("seen ") == 53
    assert ("topic filters overlap" in worker.output) is (version == "3.1.1")
