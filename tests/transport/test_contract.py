"""What every connection does, whatever carries it: memory, Mosquitto and the embedded broker, by MQTT 5 and 3.1.1."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from core.errors import ConnectionLostError
from core.mqtt.message import Properties
from core.mqtt.publication import Publication
from core.transport.connection import Subscription
from tests.support.waiting import soon, until
from tests.transport.conftest import Broker

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.transport.connection import Connection
    from tests.support.recorder import Recorder


def one(topic_filter: str = "t/#", qos: int = 1) -> Subscription:
    return Subscription(topic_filter, qos)


def acknowledging(connection: Connection, heard: Recorder, number: int) -> Callable[[], bool]:
    """Give a condition that acknowledges what has come, and is met when ``number`` messages have."""
    done = 0

    def acknowledge() -> bool:
        nonlocal done
        fresh = heard.messages[done:]
        done += len(fresh)
        connection.acknowledge([message.packet_id for message in fresh])
        return done == number

    return acknowledge


async def test_a_message_comes_as_it_was_sent(broker: Broker) -> None:
    _, heard = await broker.open("in", one(), number=7)
    out, _ = await broker.open("out", clean_start=True)
    bodies = [b"", b"x", bytes(range(256)), "grüße".encode(), os.urandom(100_000)]
    for number, body in enumerate(bodies):
        await out.publish(Publication(f"t/{number}", body, qos=1))
    await until(lambda: len(heard.messages) == len(bodies))
    for number, message in enumerate(heard.messages):
        assert (message.topic, message.body, message.qos) == (f"t/{number}", bodies[number], 1)
        assert (message.connection, message.retain, message.dup) == (7, False, False)
        assert message.packet_id > 0
        assert isinstance(message.body, bytes)


async def test_a_message_of_a_megabyte_comes_through(broker: Broker) -> None:
    _, heard = await broker.open("in", one())
    out, _ = await broker.open("out", clean_start=True)
    body = os.urandom(1024 * 1024)
    await out.publish(Publication("t/big", body, qos=1))
    await until(lambda: heard.messages)
    assert heard.bodies == [body]


async def test_quality_of_service_is_the_lower_of_both(broker: Broker) -> None:
    _, heard = await broker.open("in", Subscription("a", 0), Subscription("b", 1))
    out, _ = await broker.open("out", clean_start=True)
    for topic in ("a", "b"):
        await out.publish(Publication(topic, b"1", qos=1))
        await out.publish(Publication(topic, b"0", qos=0))
    await until(lambda: len(heard.messages) == 4)
    assert sorted((m.topic, m.body, m.qos) for m in heard.messages) == [
        ("a", b"0", 0),
        ("a", b"1", 0),
        # rumqttd sends what was published at QoS 0 at the subscription's.
        ("b", b"0", int(broker.kind.startswith("embedded"))),
        ("b", b"1", 1),
    ]
    assert all(bool(m.packet_id) is (m.qos == 1) for m in heard.messages)


async def test_what_was_not_acknowledged_comes_again_in_order(broker: Broker) -> None:
    first, heard = await broker.open("in", one())
    out, _ = await broker.open("out", clean_start=True)
    for number in range(6):
        await out.publish(Publication("t", b"%d" % number, qos=1))
    await until(lambda: len(heard.messages) == 6)
    first.acknowledge([message.packet_id for message in heard.messages[:2]])
    await first.close()
    assert heard.losses == 1

    second, again = broker.connection("in", 2)
    connack = await second.open()
    assert connack.session_present
    assert connack.version == broker.version
    assert again.connacks == [connack]
    await until(lambda: len(again.messages) == 4)
    assert again.bodies == [b"2", b"3", b"4", b"5"]
    assert {message.connection for message in again.messages} == {2}
    assert {message.dup for message in again.messages} == {broker.sets_dup}


async def test_what_comes_while_nobody_is_connected_waits_in_the_session(broker: Broker) -> None:
    first, heard = await broker.open("in", one())
    assert heard.connacks[0].session_present is False
    await first.close()
    out, _ = await broker.open("out", clean_start=True)
    for number in range(300):
        await out.publish(Publication("t", b"%d" % number, qos=1))
    second, later = await broker.open("in", number=2)
    await until(acknowledging(second, later, 300))
    assert later.bodies == [b"%d" % number for number in range(300)]


async def test_while_reading_is_paused_nothing_comes_and_nothing_is_lost(broker: Broker) -> None:
    connection, heard = await broker.open("in", one())
    out, _ = await broker.open("out", clean_start=True)
    connection.pause_reading()
    connection.pause_reading()
    for number in range(20):
        await out.publish(Publication("t", b"%d" % number, qos=1))
    await asyncio.sleep(0.1)
    assert heard.messages == []
    connection.resume_reading()
    connection.resume_reading()
    await until(lambda: len(heard.messages) == 20)
    assert heard.bodies == [b"%d" % number for number in range(20)]


async def test_no_more_come_unacknowledged_than_the_receive_maximum(broker: Broker) -> None:
    if broker.version != "5" or broker.kind.startswith("embedded"):
        pytest.skip("MQTT 3.1.1 has no Receive Maximum, and rumqttd passes over it")
    connection, heard = await broker.open("in", one(), receive_maximum=5)
    out, _ = await broker.open("out", clean_start=True)
    for number in range(12):
        await out.publish(Publication("t", b"%d" % number, qos=1))
    await until(lambda: len(heard.messages) == 5)
    await asyncio.sleep(0.05)
    assert len(heard.messages) == 5
    await until(acknowledging(connection, heard, 12))


async def test_properties_come_through_where_the_version_has_them(broker: Broker) -> None:
    _, heard = await broker.open("in", one())
    out, _ = await broker.open("out", clean_start=True)
    properties: Properties = {
        "payload_format_indicator": 1,
        "content_type": "application/json",
        "response_topic": "answers/here",
        "correlation_data": b"\x00\xff",
        "user_property": [("a", "1"), ("b", "2"), ("a", "3")],
    }
    await out.publish(Publication("t", b"{}", qos=1, properties=properties))
    await out.publish(Publication("t", b"{}", qos=1))
    await until(lambda: len(heard.messages) == 2)
    assert heard.messages[0].properties == (properties if broker.version == "5" else None)
    assert heard.messages[1].properties is None


async def test_a_retained_message_is_said_to_be_one_and_does_not_come_again_with_each_connection(broker: Broker) -> None:
    out, _ = await broker.open("out", clean_start=True)
    await out.publish(Publication("r/x", b"kept", qos=1, retain=True))
    first, heard = await broker.open("in", one("r/#"))
    await until(lambda: heard.messages)
    assert [(m.body, m.retain) for m in heard.messages] == [(b"kept", True)]
    first.acknowledge([heard.messages[0].packet_id])
    await first.close()
    if broker.kind in {"memory", "mosquitto native 5", "mosquitto aiomqtt 5"}:
        # "Send only if the subscription is new" is MQTT 5's (3.8.3.1).
        _, again = await broker.open("in", one("r/#"), number=2)
        await out.publish(Publication("r/y", b"new", qos=1))
        await until(lambda: again.messages)
        assert again.bodies == [b"new"]
    await out.publish(Publication("r/x", b"", qos=1, retain=True))


async def test_a_clean_start_begins_without_the_old_session(broker: Broker) -> None:
    first, _ = await broker.open("in", one())
    await first.close()
    _, later = await broker.open("in", clean_start=True, number=2)
    out, _ = await broker.open("out", clean_start=True)
    await out.publish(Publication("t", b"x", qos=1))
    assert later.connacks[0].session_present is False
    assert later.messages == []


async def test_an_unsubscribed_filter_brings_nothing_more(broker: Broker) -> None:
    connection, heard = await broker.open("in", one("a"), one("b"))
    await connection.unsubscribe(["a"])
    out, _ = await broker.open("out", clean_start=True)
    await out.publish(Publication("a", b"gone", qos=1))
    await out.publish(Publication("b", b"there", qos=1))
    await until(lambda: heard.messages)
    assert heard.bodies == [b"there"]


async def test_after_the_end_nothing_is_sent_and_nothing_hangs(broker: Broker) -> None:
    connection, heard = await broker.open("in", one())
    ending = asyncio.ensure_future(connection.closed())
    await connection.close()
    await soon(ending)
    await connection.close()
    assert heard.losses == 1
    connection.acknowledge([1, 2, 3])
    connection.pause_reading()
    connection.resume_reading()
    with pytest.raises(ConnectionLostError):
        await connection.publish(Publication("t", b"x", qos=1))
    with pytest.raises(ConnectionLostError):
        await connection.subscribe([one()])


async def test_many_acknowledged_in_one_call_are_all_taken(broker: Broker) -> None:
    connection, heard = await broker.open("in", one())
    out, _ = await broker.open("out", clean_start=True)
    connection.pause_reading()
    publishing = asyncio.gather(*(out.publish(Publication("t", b"%d" % number, qos=1)) for number in range(500)))
    await publishing
    connection.resume_reading()
    await until(acknowledging(connection, heard, 500))
    assert heard.bodies == [b"%d" % number for number in range(500)]
    await connection.close()
    _, again = await broker.open("in", number=2)
    await out.publish(Publication("t", b"last", qos=1))
    await until(lambda: again.messages)
    assert again.bodies == [b"last"]
