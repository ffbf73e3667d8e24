"""The example application, as a newcomer meets it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from core.transport.connect import connector
from core.transport.connection import Subscription
from core.transport.options import parse_url
from tests.support.mosquitto import MOSQUITTO_PUB, Mosquitto, require_mosquitto
from tests.support.postgres import fetch, postgres
from tests.support.recorder import Recorder
from tests.support.waiting import until
from tests.support.worker import ROOT, Projects

DATA = ROOT.parent / "shared" / "data" / "rtl433.jsonl"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_simulated_readings_are_rows_and_a_signal_ends_it_with_code_0(project: Projects, number: int) -> None:
    one = project()
    worker = await one.start().ready()
    code, said = await one.command("simulate", "--devices", "20", "--rate", "400", "--duration", "2")
    assert code == 0
    assert "800 sent, 800 acknowledged" in said
    await until(lambda: one.count("sensor_readings") == 800)
    assert one.count("devices") == 20
    assert await worker.stop(number) == 0
    assert "stopped: 800 received, 800 done, 0 in hand" in worker.output
    assert "Traceback" not in worker.output
    kinds = set(one.rows("SELECT DISTINCT sensor_type, unit, typeof(value) FROM sensor_readings"))
    assert {("humidity", "percent", "real"), ("power", "watt", "real")} <= kinds


async def test_two_lines_take_it_to_mosquitto_and_postgresql(project: Projects, mosquitto: Mosquitto) -> None:
    url = postgres().new_database()
    one = project(MQTT_URL=mosquitto.url, DATABASE_URL=url)
    assert (await one.command("db", "upgrade"))[0] == 0
    worker = await one.start().ready()
    assert mosquitto.url in worker.output
    code, said = await one.command("simulate", "--devices", "5", "--rate", "300", "--duration", "1")
    assert (code, "300 acknowledged" in said) == (0, True)
    assert await worker.stop() == 0
    assert "300 received, 300 done, 0 in hand" in worker.output
    assert await fetch(url, "SELECT count(*) FROM sensor_readings") == [(300,)]


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
async def test_mosquittos_client_reaches_a_controller(project: Projects, version: str) -> None:
    require_mosquitto()
    assert MOSQUITTO_PUB is not None
    one = project()
    await one.start().ready()
    port = int(one.environment["MQTT_URL"].rpartition(":")[2]) + (version == "mqttv5")
    arguments = ["-V", version, "-p", str(port), "-q", "1", "-t", "devices/kitchen/data"]
    body = json.dumps({"type": "temperature", "value": 21.5, "unit": "celsius", "timestamp": 1767225600})
    await asyncio.to_thread(subprocess.run, [MOSQUITTO_PUB, *arguments, "-m", body], check=True, timeout=20)
    await until(lambda: one.count("sensor_readings") == 1)
    assert one.rows("SELECT device_id, sensor_type, value, unit, timestamp FROM sensor_readings") == [
        ("kitchen", "temperature", 21.5, "celsius", 1767225600.0)
    ]


async def test_the_history_is_answered(project: Projects) -> None:
    one = project()
    worker = await one.start().ready()
    for value in (1, 2):
        body = json.dumps({"type": "t", "value": value})
        assert await one.command("publish", "devices/a/data", body) == (0, "")
    await until(lambda: one.count("sensor_readings") == 2)
    heard = Recorder()
    port = int(one.environment["MQTT_URL"].rpartition(":")[2])
    options = parse_url(f"mqtt://127.0.0.1:{port}")
    connection = connector(replace(options, version="3.1.1", client_id="h", clean_start=True))(heard, 1)
    await connection.open()
    await connection.subscribe([Subscription("devices/a/history/result", 1)])
    assert (await one.command("publish", "devices/a/history", "{}"))[0] == 0
    await until(lambda: heard.messages)
    answer = json.loads(heard.bodies[0])
    assert [reading["value"] for reading in answer["readings"]] == [1, 2]
    await connection.close()
    assert await worker.stop() == 0


@pytest.mark.skipif(not DATA.exists() and not os.environ.get("ROUTEMQ_REQUIRE_SPEC"), reason=f"{DATA.name} is not there")
async def test_every_message_of_a_real_receiver_is_stored(project: Projects) -> None:
    one = project()
    await one.start().ready()
    code, said = await one.command("replay", str(DATA), "--topic", "rtl_433/<model>/<id>")
    lines = [line for line in Path(DATA).read_text().splitlines() if line.strip()]
    assert (code, f"{len(lines)} acknowledged" in said) == (0, True)
    await until(lambda: one.count("rtl433_readings") == len(lines))
    stored = sorted(
        json.dumps(json.loads(row[0]), sort_keys=True) for row in one.rows("SELECT message FROM rtl433_readings")
    )
    assert stored == sorted(json.dumps(json.loads(line), sort_keys=True) for line in lines)
    assert one.count("routemq_dead_letters") == 0
