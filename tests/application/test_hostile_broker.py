"""What a broker lets through that checks nothing, and what it hangs up on, costs one message each."""

from __future__ import annotations

import pytest

from tests.support.hostile_broker import HostileBroker, publish, text
from tests.support.mosquitto import Mosquitto
from tests.support.tcp_server import serving
from tests.support.waiting import until
from tests.support.worker import Projects, Publishers

pytestmark = pytest.mark.case(11)
ROUTER = """
from core.router import Router

router = Router()

@router.on("<path:rest>"HOW)
async def take(context):
    return None
"""
REPLYING = """
from core.router import Router

router = Router()

@router.on("ask/<n>", reply="answers/<n>"HOW)
async def ask(context):
    return {"n": context["params"]["n"]}

@router.on("deep/<n>"HOW)
async def deep(context):
    await context["publish"]("/".join(["deep"] * 300), {}, qos=1)
"""
HOWS = ["", ', delivery="exactly_once"']
DEEP = b"/".join([b"deep"] * 300)


@pytest.mark.parametrize("how", HOWS, ids=["at_least_once", "exactly_once"])
@pytest.mark.parametrize("version", ["native 5", "aiomqtt 5", "aiomqtt 3.1.1"])
async def test_malformed_messages_are_dead_letters_and_acknowledged(project: Projects, version: str, how: str) -> None:
    transport, number = version.split()
    is_5 = number == "5"
    large = publish(version, b"large", b"x" * 300_000, 7)
    sends = [
        publish(version, b"a/\xff", b"{}", 0),
        publish(version, b"a/\xff", b"{}", 2),
        publish(version, b"a/#", b"{}", 3),
        publish(version, b"a\0b", b"{}", 4),
        publish(version, b"t", b"{}", 5, b"\x03" + text(b"\xff") if is_5 else b""),
        publish(version, b"", b"{}", 6) if is_5 else publish(version, b"a/+", b"{}", 6),
        large,
        publish(version, b"t", b"{}", 8),
    ]
    broker = HostileBroker(version, sends)
    async with serving(broker) as port:
        one = project(
            {"r": ROUTER.replace("HOW", how)},
            MQTT_URL=f"mqtt://127.0.0.1:{port}",
            MQTT_TRANSPORT="auto" if number == "3.1.1" else transport,
            MQTT_VERSION=number,
            MAX_PAYLOAD_BYTES=1000,
        )
        worker = await one.start().ready()
        await until(lambda: len(broker.acknowledged) == 7)
        assert broker.acknowledged == [2, 3, 4, 5, 6, 7, 8]
        # Before the session there are the probe's, where identifiers have to prove something.
        assert broker.connections == (1 if how == HOWS[0] else 4)
        letters = one.rows("SELECT topic, body, error, reason FROM routemq_dead_letters ORDER BY id")
        topics = {topic: (body, error) for topic, body, error, _ in letters}
        malformed = (b"{}", "MalformedError")
        expected = {
            "a/\\xff": malformed,
            "a/#": malformed,
            "a\\x00b": malformed,
            "large": (b"x" * 65_536, "PacketTooLargeError"),
        }
        expected |= {"t": malformed, "": malformed} if is_5 else {"a/+": malformed}
        assert topics == expected
        reasons = {topic: reason for topic, _, _, reason in letters}
        assert "the topic is not well-formed UTF-8 (MQTT 5, 1.5.4)" in reasons["a/\\xff"]
        assert f"the packet has {len(large) - 4:,} bytes" in reasons["large"] or f"{len(large):,} bytes" in reasons["large"]
        assert await worker.stop() == 0
        assert "is dropped, because it came at QoS 0" in worker.output
        dead = len(expected)
        assert f"8 received, {7 - dead} done, {dead} dead-lettered, 1 failed, 0 in hand" in worker.output
        # What is not whole is not run again. The others are, as the person wants who asks for it.
        code, said = await one.command("dead-letters", "replay", "--all")
        assert code == 1
        kept = {topic for (topic,) in one.rows("SELECT topic FROM routemq_dead_letters")}
        assert kept == expected.keys() - {"a/\\xff", "t", "a\\x00b"}, said


@pytest.mark.parametrize("how", HOWS, ids=["at_least_once", "exactly_once"])
async def test_what_mosquitto_hangs_up_on_is_given_up(
    project: Projects, publisher: Publishers, mosquitto: Mosquitto, how: str
) -> None:
    one = project({"r": REPLYING.replace("HOW", how)}, MQTT_URL=mosquitto.url, MQTT_CLIENT_ID="w", RETRY_FIRST=0.01)
    worker = await one.start().ready()
    out = await publisher(mosquitto.url)
    await out.publish("ask/0", {}, qos=1, properties={"response_topic": DEEP.decode()})
    await out.publish("deep/1", {}, qos=1)
    for number in range(2, 52):
        await out.publish(f"ask/{number}", {}, qos=1)
    await worker.says("hung up", 60)
    expected = 1 if not how else 2
    await until(lambda: one.count("routemq_dead_letters") == expected, 60)
    await out.publish("ask/52", {}, qos=1)
    assert await worker.stop() == 0
    letters = one.rows("SELECT topic, error, reason, attempts FROM routemq_dead_letters ORDER BY topic")
    if how:
        assert [(topic, error) for topic, error, _, _ in letters] == [(DEEP.decode(), "UnsentError")] * 2
        assert one.count("routemq_outbox") == 0
        code, said = await one.command("dead-letters", "replay", "--all")
        assert (code, one.count("routemq_dead_letters")) == (1, 2), said
        assert "hung up" in said
    else:
        ((topic, error, reason, attempts),) = letters
        assert (topic, error, attempts) == ("deep/1", "HungUpError", 1)
        assert "the broker hung up" in reason
        assert "the broker refused a reply, which is dropped" in worker.output
    assert "53 received" in worker.output
