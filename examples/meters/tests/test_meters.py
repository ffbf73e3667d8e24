"""What meters send becomes rows, and an operator's order reaches a meter and is answered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import cbor2
import pytest
from app.models.meter import Meter
from app.models.reading import Reading

from core.errors import RequestTimeoutError, SchemaError
from core.model import Model

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


async def test_a_reading_is_stored_and_its_meter_known(client):
    await client.send("meters/M1/readings", {"kwh": 1234.5, "taken_at": NOON, "voltage": 230.4})
    (reading,) = await Model.all(Reading)
    assert (reading.serial, reading.kwh, reading.voltage) == ("M1", 1234.5, 230.4)
    assert (await Model.first(Meter, serial="M1")).last_seen is not None


async def test_a_reading_that_comes_again_is_stored_once(client):
    await client.send("meters/M1/readings", {"kwh": 1.0, "taken_at": NOON})
    await client.redeliver()
    assert await Model.count(Reading) == 1


async def test_seconds_since_the_epoch_are_a_time_too(client):
    await client.send("meters/M1/readings", cbor2.dumps({"kwh": 1, "taken_at": int(NOON.timestamp())}))
    (reading,) = await Model.all(Reading)
    assert reading.taken_at.replace(tzinfo=UTC) == NOON


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"kwh": -1, "taken_at": NOON}, "kwh"),
        ({"kwh": 1, "taken_at": NOON, "volts": 230}, "volts"),
        ({"kwh": 1}, "taken_at"),
        (b"\xa1\x63kwh", "CBOR"),
    ],
)
async def test_what_is_no_reading_is_a_dead_letter_that_says_why(client, body, said):
    with pytest.raises(Exception, match=said):
        await client.send("meters/M1/readings", body)
    (letter,) = client.dead_letters
    assert said in letter.reason
    assert await Model.count(Reading) == 0


async def test_an_operator_switches_a_relay_and_hears_what_the_meter_says(client):
    client.answer("meters/M1/commands", lambda message: {"relay": message.payload["relay"]})
    answer = await client.send("operators/meters/M1/relay", {"relay": "off"})
    assert answer == {"serial": "M1", "relay": "off"}
    assert (await Model.first(Meter, serial="M1")).relay == "off"
    assert client.published[-1].topic == "operators/meters/M1/relay/result"


async def test_an_operator_hears_of_a_meter_that_does_not_answer(client):
    with pytest.raises(RequestTimeoutError):
        await client.send("operators/meters/M9/relay", {"relay": "off"})
    for _ in range(2):
        await client.advance(10)
    assert client.published[-1].payload["error"]["type"] == "RequestTimeoutError"


async def test_an_order_that_is_none_is_answered_at_once(client):
    with pytest.raises(SchemaError):
        await client.send("operators/meters/M1/relay", {"relay": "perhaps"})
    assert client.published[-1].payload["error"]["fields"][0].startswith("relay")


async def test_readings_are_kept_for_a_year(client):
    await client.send("meters/M1/readings", {"kwh": 1.0, "taken_at": datetime.now(UTC) - timedelta(days=366)})
    await client.send("meters/M1/readings", {"kwh": 2.0, "taken_at": datetime.now(UTC)})
    await client.advance(86_400)
    assert [reading.kwh for reading in await Model.all(Reading)] == [2.0]
