"""The example application, tested as its users test theirs: the fixtures are those of RouteMQ's pytest plugin."""

from __future__ import annotations

import pytest

from app.models.device import Device
from app.models.rtl433_reading import Rtl433Reading
from app.models.sensor_reading import SensorReading
from core.model import Model
from core.testing import TestClient


async def test_a_reading_is_stored_and_its_device_known(client: TestClient) -> None:
    answer = await client.send("devices/kitchen/data", {"type": "temperature", "value": 21.5, "timestamp": 1767225600})
    reading = await Model.find(SensorReading, answer["reading_id"])
    assert reading is not None
    assert (reading.device_id, reading.sensor_type, reading.value) == ("kitchen", "temperature", 21.5)
    device = await Model.first(Device, device_id="kitchen")
    assert device is not None
    assert device.status == "online"


async def test_a_reading_without_a_value_is_a_dead_letter_after_its_retries(client: TestClient) -> None:
    with pytest.raises(KeyError):
        await client.send("devices/kitchen/data", {"type": "temperature"})
    await client.advance(60)
    assert [letter.error for letter in client.dead_letters] == ["KeyError"]
    assert await Model.count(SensorReading) == 0


async def test_the_history_of_a_device_is_its_reply(client: TestClient) -> None:
    for value in (20.0, 21.0):
        await client.send("devices/attic/data", {"type": "temperature", "value": value})
    await client.send("devices/attic/history", {"hours": 1})
    (reply,) = client.published
    assert reply.topic == "devices/attic/history/result"
    assert [reading["value"] for reading in reply.payload["readings"]] == [20.0, 21.0]


async def test_every_test_has_an_empty_database(db: type[Model]) -> None:
    assert await db.count(SensorReading) == await db.count(Rtl433Reading) == 0
