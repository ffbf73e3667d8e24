"""request(), with devices on paho behind a real Mosquitto."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import pytest

from core.database.fault import Fault, fault_of
from core.errors import ConnectionLostError, RequestError, RequestTimeoutError, TopicError
from core.publisher import Publisher, publish, use_publisher
from core.request import request
from core.session import answers
from tests.requests.conftest import MakeDevices, Publishing
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import until


@pytest.fixture(params=["native 5", "aiomqtt 5"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def nothing_is_left(publisher: Publisher) -> bool:
    held = publisher.answers
    return not held.waiting and held._slots._value == answers.MAX_WAITING


async def test_a_device_answers_on_the_response_topic(devices: MakeDevices, publishing: Publishing, transport: str) -> None:
    device, publisher = devices(), publishing(transport)
    assert await request("devices/42/commands", {"n": 1}) == {"echo": 1}
    assert device.heard == [("devices/42/commands", {"n": 1})]
    assert nothing_is_left(publisher)


@pytest.mark.parametrize("version", ["native 5", "aiomqtt 3.1.1"])
async def test_a_device_answers_on_a_topic_of_its_own(devices: MakeDevices, publishing: Publishing, version: str) -> None:
    publisher = publishing(version)
    devices("3.1.1")
    assert await request("devices/42/commands", {"n": 1}, reply="devices/42/answers") == {"echo": 1}
    assert await request("devices/43/commands", {"n": 2}, reply="devices/+/answers") == {"echo": 2}
    assert nothing_is_left(publisher)
    await until(lambda: not publisher.answers.topic_filters)


async def test_by_mqtt_3_1_1_a_request_without_a_reply_topic_is_refused_at_once(publishing: Publishing) -> None:
    publisher = publishing("aiomqtt 3.1.1")
    with pytest.raises(RequestError, match=r"MQTT 3\.1\.1.*'devices/42/commands'.*reply="):
        await request("devices/42/commands", {}, timeout=60)
    assert nothing_is_left(publisher)


@pytest.mark.case(11)
async def test_correlation_data_cannot_be_guessed(devices: MakeDevices, publishing: Publishing, transport: str) -> None:
    device = devices()
    publishing(transport)
    await asyncio.gather(*(request(f"devices/{n}/commands", {"n": n}, timeout=20) for n in range(100)))
    told: list[bytes] = [getattr(message.properties, "CorrelationData") for message in device.messages]  # noqa: B009 - paho's
    assert {len(data) for data in told} == {16}
    # Each byte takes many values, so that no part of one request's data tells anything of another's.
    assert min(len({data[place] for data in told}) for place in range(16)) > 40


async def test_five_hundred_at_once_each_get_their_own(devices: MakeDevices, publishing: Publishing, transport: str) -> None:
    devices()
    publisher = publishing(transport)
    given = await asyncio.gather(*(request(f"devices/{n}/commands", {"n": n}, timeout=20) for n in range(500)))
    assert given == [{"echo": n} for n in range(500)]
    assert nothing_is_left(publisher)
    assert publisher.answers.late == 0


async def test_five_hundred_at_once_by_topics_of_their_own(devices: MakeDevices, publishing: Publishing) -> None:
    devices("3.1.1")
    publisher = publishing("aiomqtt 3.1.1")
    asked = (request(f"devices/{n}/commands", {"n": n}, timeout=20, reply=f"devices/{n}/answers") for n in range(500))
    assert await asyncio.gather(*asked) == [{"echo": n} for n in range(500)]
    assert nothing_is_left(publisher)
    await until(lambda: not publisher.answers.topic_filters)


async def test_of_one_topic_the_oldest_request_gets_the_next_answer(devices: MakeDevices, publishing: Publishing) -> None:
    devices("3.1.1")
    publishing("aiomqtt 3.1.1")
    asked = (request("devices/1/commands", {"n": n}, reply="devices/1/answers") for n in range(20))
    assert await asyncio.gather(*asked) == [{"echo": n} for n in range(20)]


async def test_no_answer_is_an_error_in_time(devices: MakeDevices, publishing: Publishing) -> None:
    devices()
    publisher = publishing()
    began = monotonic()
    with pytest.raises(RequestTimeoutError, match=r"^no answer from 'devices/42/commands' within 0\.3 s$") as raised:
        await request("devices/42/commands", {"silent": True}, timeout=0.3)
    assert fault_of(raised.value) is Fault.MESSAGE
    assert monotonic() - began < 2
    assert nothing_is_left(publisher)


@pytest.mark.parametrize("reply", [None, "devices/42/late"])
async def test_where_there_is_no_broker_the_time_runs_out_too(
    broker: Mosquitto, publishing: Publishing, reply: str | None
) -> None:
    publisher = publishing()
    await asyncio.to_thread(broker.stop)
    with pytest.raises(RequestTimeoutError) as raised:
        await request("devices/42/commands", {}, timeout=0.3, reply=reply)
    assert fault_of(raised.value) is Fault.INFRASTRUCTURE
    assert nothing_is_left(publisher)


async def test_a_late_answer_is_counted_and_told_once(
    devices: MakeDevices, publishing: Publishing, caplog: pytest.LogCaptureFixture
) -> None:
    devices()
    publisher = publishing()
    # Once it is connected and subscribed, the time of a request begins with its command.
    assert await request("devices/42/commands", {"n": 0}) == {"echo": 0}
    for _ in range(3):
        with pytest.raises(RequestTimeoutError):
            await request("devices/42/commands", {"after": 0.3}, timeout=0.1)
    await until(lambda: publisher.answers.late == 3)
    assert await request("devices/42/commands", {"n": 1, "twice": True}) == {"echo": 1}
    await until(lambda: publisher.answers.late == 4)
    assert sum("came late" in line for line in caplog.messages) == 1
    assert "routemq/test/responses" in caplog.text


async def test_an_answer_with_the_correlation_data_of_nobody_is_no_answer(
    devices: MakeDevices, publishing: Publishing
) -> None:
    devices()
    publisher = publishing()
    assert await request("devices/42/commands", {"n": 0}) == {"echo": 0}
    with pytest.raises(RequestTimeoutError):
        await request("devices/42/commands", {"correlation": "guessed"}, timeout=0.5)
    await until(lambda: publisher.answers.late)
    assert publisher.answers.late == 1


@pytest.mark.parametrize("version", ["native 5", "aiomqtt 5", "aiomqtt 3.1.1"])
async def test_what_was_retained_on_the_reply_topic_is_no_answer(
    devices: MakeDevices, publishing: Publishing, version: str
) -> None:
    devices("3.1.1")
    publishing(version)
    await publish("devices/42/answers", {"old": True}, qos=1, retain=True)
    assert await request("devices/42/commands", {"n": 1, "after": 0.1}, reply="devices/42/answers") == {"echo": 1}


async def test_a_cancelled_request_is_forgotten_at_once(devices: MakeDevices, publishing: Publishing) -> None:
    device, publisher = devices(), publishing()
    asking = [
        asyncio.create_task(request("devices/42/commands", {"after": 0.3}, timeout=30)),
        asyncio.create_task(request("devices/42/commands", {"after": 0.3}, timeout=30, reply="devices/42/answers")),
    ]
    await until(lambda: len(device.heard) == 2)
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)
    assert all(task.cancelled() for task in asking)
    assert nothing_is_left(publisher)
    await until(lambda: publisher.answers.late)
    assert await request("devices/42/commands", {"n": 1}) == {"echo": 1}


async def test_a_filter_that_is_left_and_wanted_again_is_subscribed(devices: MakeDevices, publishing: Publishing) -> None:
    devices("3.1.1")
    publishing()
    for n in range(50):
        leaving = asyncio.create_task(request("devices/1/commands", {"silent": True}, reply="devices/1/answers"))
        await asyncio.sleep(0.002 * (n % 5))
        leaving.cancel()
        assert await request("devices/1/commands", {"n": n}, reply="devices/1/answers") == {"echo": n}


async def test_what_is_beyond_the_most_waits_for_its_turn(
    devices: MakeDevices, publishing: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MAX_WAITING", 2)
    device, publisher = devices(), publishing()
    silent = [asyncio.create_task(request("devices/1/commands", {"silent": True}, timeout=20)) for _ in range(2)]
    await until(lambda: len(device.heard) == 2)
    with pytest.raises(RequestTimeoutError):
        await request("devices/1/commands", {"n": 1}, timeout=0.2)
    third = asyncio.create_task(request("devices/1/commands", {"n": 3}))
    silent[0].cancel()
    assert await third == {"echo": 3}
    assert [command for _, command in device.heard] == [{"silent": True}, {"silent": True}, {"n": 3}]
    silent[1].cancel()
    await asyncio.wait(silent)
    assert nothing_is_left(publisher)


async def test_after_the_broker_was_away_requests_are_answered_again(
    broker: Mosquitto, devices: MakeDevices, publishing: Publishing, transport: str
) -> None:
    device, publisher = devices(), publishing(transport)
    assert await request("devices/1/commands", {"n": 1}) == {"echo": 1}
    waiting = asyncio.create_task(request("devices/1/nobody", {}, timeout=20, reply="devices/1/answers"))
    await until(lambda: publisher.answers.topic_filters == {"routemq/test/responses", "devices/1/answers"})
    device.away()
    await asyncio.to_thread(broker.stop)
    await asyncio.to_thread(broker.start)
    await asyncio.to_thread(device.wait)
    assert await request("devices/1/commands", {"n": 3}, timeout=10) == {"echo": 3}
    # The filter of the one that waited all the time was subscribed again too.
    await publish("devices/1/answers", {"echo": 2}, qos=1)
    assert await waiting == {"echo": 2}


async def test_answers_come_as_they_are(devices: MakeDevices, publishing: Publishing) -> None:
    devices()
    publishing()
    error = '{"error": {"code": 7}}'
    assert await request("devices/1/commands", {"body": error}) == {"error": {"code": 7}}
    assert await request("devices/1/commands", b'{"body": "grey"}', codec="text") == "grey"
    assert await request("devices/1/commands", '{"body": "grey"}', codec="raw") == b"grey"
    with pytest.raises(
        RequestError, match="the answer from 'devices/1/commands' on 'routemq/test/responses' cannot be read"
    ):
        await request("devices/1/commands", {"body": "no JSON"})


async def test_user_properties_go_with_it(broker: Mosquitto, devices: MakeDevices, publishing: Publishing) -> None:
    device = devices()
    publishing()
    assert await request("devices/1/commands", {"n": 1}, properties={"user_property": [("a", "b")]}) == {"echo": 1}
    told: Any = device.messages[0].properties
    assert told.UserProperty == [("a", "b")]


async def test_what_cannot_be_asked_is_said(publishing: Publishing) -> None:
    publishing()
    with pytest.raises(ValueError, match="qos=2"):
        await request("t", {}, qos=2)
    with pytest.raises(ValueError, match="codec='yaml' is not one of json"):
        await request("t", {}, codec="yaml")
    with pytest.raises(TopicError):
        await request("t/#", {})
    with pytest.raises(TopicError):
        await request("t", {}, reply="a/#/b")
    with pytest.raises(TopicError, match="shared"):
        await request("t", {}, reply="$share/g/a")
    with pytest.raises(RequestError, match="correlation_data"):
        await request("t", {}, properties={"correlation_data": b"mine"})
    use_publisher(None)
    for call in (request("t", {}), publish("t", {})):
        with pytest.raises(RequestError, match=r"bootstrap\.script\.script"):
            await call


async def test_a_stop_ends_what_waits(devices: MakeDevices, publishing: Publishing) -> None:
    device, publisher = devices(), publishing()
    asking = asyncio.create_task(request("devices/1/commands", {"silent": True}, timeout=20))
    await until(lambda: device.heard)
    await publisher.stop()
    with pytest.raises(ConnectionLostError):
        await asking
