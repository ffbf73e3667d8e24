"""What cannot work stops the start with one clear message and exit code 1; what may come is waited for."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import pytest

from tests.support.mosquitto import Mosquitto, free_pair, free_port
from tests.support.postgres import Postgres, fetch, postgres
from tests.support.waiting import until
from tests.support.worker import Projects, Publishers

ROUTER = """
from core.router import Router

router = Router()

@router.on("t/<name>")
async def handle(context):
    pass
"""


def one_error(said: str, *parts: str) -> None:
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    for part in parts:
        assert part in errors[0]


@pytest.mark.parametrize(
    ("variables", "parts"),
    [
        ({"DATABASE_URL": "mysq://x"}, ["DATABASE_URL", "mysq"]),
        ({"DATABASE_URL": "postgresql://u:s3cr3t@h/d"}, ["DATABASE_URL", "postgresql+asyncpg"]),
        ({"MQTT_URL": "http://u:s3cr3t@h"}, ["MQTT_URL", "http", "mqtt://"]),
        ({"MQTT_URL": "embedded://0.0.0.0:1883"}, ["this machine only"]),
        ({"MQTT_KEEPALIVE": "soon"}, ["MQTT_KEEPALIVE", "soon", "whole number", ".env"]),
        ({"LOG_LEVEL": "LOUD"}, ["LOG_LEVEL", "LOUD", "DEBUG, INFO"]),
        ({"MQTT_CA_FILE": "/no/such.pem"}, ["MQTT_CA_FILE", "/no/such.pem", "readable"]),
        ({"DATABASE_URL": "sqlite+aiosqlite:////dev/null/x.db"}, ["/dev/null"]),
    ],
)
async def test_a_bad_setting(project: Projects, variables: dict[str, str], parts: list[str]) -> None:
    code, said = await project(None, None, **variables).command("run")
    assert code == 1
    one_error(said, *parts)
    assert "Traceback" not in said
    assert "s3cr3t" not in said


async def test_several_bad_settings_are_told_at_once(project: Projects) -> None:
    code, said = await project(MQTT_KEEPALIVE="x", RETRY_FACTOR=0).command("config")
    assert code == 1
    assert [line.split("=")[0] for line in said.splitlines()] == ["error: MQTT_KEEPALIVE", "error: RETRY_FACTOR"]


async def test_a_variable_that_is_no_setting_is_warned_of(project: Projects) -> None:
    code, said = await project(MQTT_KEEP_ALIVE=30).command("routes")
    assert code == 0
    code, said = await project(MQTT_KEEP_ALIVE=30).command("config")
    assert "MQTT_KEEP_ALIVE in .env is no setting, did you mean MQTT_KEEPALIVE?" in said


async def test_a_broken_router_module_stops_the_start_with_its_traceback(project: Projects) -> None:
    one = project({"good": ROUTER, "broken": "from core.router import Router\nrouter = Router()\nimport no_such_module\n"})
    code, said = await one.command("run")
    assert code == 1
    one_error(said, "routers/broken.py", "no_such_module")
    assert 'broken.py", line 3' in said


async def test_a_codec_whose_library_is_missing_stops_the_start_with_what_to_install(project: Projects) -> None:
    hidden = "import sys\n\nsys.modules['cbor2'] = None\n" + ROUTER.replace('"t/<name>"', '"t/<name>", codec="cbor+gzip"')
    code, said = await project({"telemetry": hidden}).command("run")
    assert code == 1
    one_error(said, "route 't/<name>' at", "telemetry.py:", "cbor2", "not installed: pip install 'cbor2>=6,<7'")
    assert "Traceback" not in said


async def test_a_schema_that_cannot_be_stops_the_start(project: Projects) -> None:
    code, said = await project({"telemetry": ROUTER.replace('"t/<name>"', '"t/<name>", schema=Router')}).command("run")
    assert code == 1
    one_error(said, "route 't/<name>' at", "telemetry.py:", "schema=Router", "pydantic cannot make a schema of this type")


async def test_a_module_without_a_router_stops_the_start(project: Projects) -> None:
    code, said = await project({"empty": "x = 1\n"}).command("run")
    assert code == 1
    one_error(said, "routers/empty.py", "router = Router()")


async def test_a_shadowed_route_stops_the_start_naming_both_places(project: Projects) -> None:
    source = ROUTER + '\n@router.on("t/fixed")\nasync def late(context):\n    pass\n'
    code, said = await project({"shadow": source}).command("run")
    assert code == 1
    one_error(said, "t/fixed", "t/<name>", "shadow.py:6", "shadow.py:10")


async def test_exactly_once_without_a_database_stops_the_start(project: Projects) -> None:
    source = ROUTER.replace('"t/<name>"', '"t/<name>", delivery="exactly_once"')
    code, said = await project({"once": source}, {}, DATABASE_URL="").command("run")
    assert code == 1
    one_error(said, "exactly_once", "DATABASE_URL", "once.py:6")


async def test_exactly_once_with_a_session_that_ends_at_once_stops_the_start(project: Projects) -> None:
    source = ROUTER.replace('"t/<name>"', '"t/<name>", delivery="exactly_once"')
    code, said = await project({"once": source}, {}, MQTT_SESSION_EXPIRY=0).command("run")
    assert code == 1
    one_error(said, "exactly_once", "MQTT_SESSION_EXPIRY=0", "once.py:6")


async def test_exactly_once_with_too_many_packets_under_way_stops_the_start(project: Projects) -> None:
    source = ROUTER.replace('"t/<name>"', '"t/<name>", delivery="exactly_once"')
    code, said = await project({"once": source}, {}, MQTT_RECEIVE_MAXIMUM=16_385).command("run")
    assert code == 1
    one_error(said, "exactly_once", "MQTT_RECEIVE_MAXIMUM=16385", "16384", "once.py:6")


async def test_no_routes_at_all_is_said(project: Projects) -> None:
    code, said = await project({}).command("run")
    assert code == 1
    one_error(said, "app/routers")


async def test_a_broken_model_module_stops_the_start(project: Projects) -> None:
    code, said = await project({"good": ROUTER}, {"bad": "1 / 0\n"}).command("run")
    assert code == 1
    one_error(said, "app.models.bad", "ZeroDivisionError")


@pytest.mark.parametrize(
    ("database", "user", "part"), [("nowhere", "postgres", "nowhere"), ("postgres", "nobody", "nobody")]
)
async def test_an_unknown_database_or_user_stops_the_start(project: Projects, database: str, user: str, part: str) -> None:
    code, said = await project(DATABASE_URL=postgres().url(database, user, "s3cr3t")).command("run")
    assert code == 1
    one_error(said, "cannot be used", part)
    assert "s3cr3t" not in said


async def test_a_database_that_is_not_there_is_waited_for(project: Projects, publisher: Publishers) -> None:
    server = Postgres()
    url = server.new_database()
    await asyncio.to_thread(server.stop)
    one = project(DATABASE_URL=url, DB_AUTO_MIGRATE="true")
    worker = one.start()
    await worker.says("waiting for the database")
    await asyncio.to_thread(server.start)
    await worker.says("answers now")
    await worker.ready()
    await (await publisher(one)).publish("devices/a/data", b'{"type": "t", "value": 1}', qos=1)

    async def stored() -> bool:
        return await fetch(url, "SELECT count(*) FROM sensor_readings") == [(1,)]

    await until(stored)
    assert await worker.stop() == 0
    assert worker.output.count("waiting for the database") == 1


async def test_waiting_for_the_database_can_be_stopped(project: Projects) -> None:
    worker = project(DATABASE_URL=f"postgresql+asyncpg://u:s3cr3t@127.0.0.1:{free_port()}/d").start()
    await worker.says("waiting for the database")
    assert await worker.stop(signal.SIGINT) == 0
    assert "s3cr3t" not in worker.output
    assert "Traceback" not in worker.output


async def test_a_broker_that_is_not_there_is_waited_for(project: Projects, tmp_path: Path, publisher: Publishers) -> None:
    broker = Mosquitto(tmp_path / "late")
    one = project(MQTT_URL=broker.url)
    worker = one.start()
    await worker.says("no connection: ")
    await asyncio.to_thread(broker.start)
    await worker.ready()
    await (await publisher(one)).publish("devices/a/data", b'{"type": "t", "value": 1}', qos=1)
    await until(lambda: one.count("sensor_readings") == 1)
    assert await worker.stop() == 0
    broker.stop()


async def test_another_broker_on_the_port_is_used_and_said(
    project: Projects, mosquitto: Mosquitto, publisher: Publishers
) -> None:
    one = project(MQTT_URL=f"embedded://127.0.0.1:{mosquitto.port}")
    worker = await one.start().ready()
    assert "already running there" in worker.output
    await (await publisher(mosquitto.url)).publish("devices/a/data", b'{"type": "t", "value": 1}', qos=1)
    await until(lambda: one.count("sensor_readings") == 1)
    assert await worker.stop() == 0


async def test_something_else_on_the_port_is_one_clear_line(project: Projects) -> None:
    port = free_pair()
    with socket.create_server(("127.0.0.1", port)):
        code, said = await project(MQTT_URL=f"embedded://127.0.0.1:{port}").command("run")
    assert code == 1
    one_error(said, str(port), "Choose another port")
    assert "Traceback" not in said


async def test_commands_without_a_worker_say_what_to_do(project: Projects) -> None:
    code, said = await project().command("publish", "t", "x")
    assert code == 1
    one_error(said, "make run")


async def test_a_second_start_of_the_same_project_uses_the_first_ones_broker(project: Projects) -> None:
    one = project(MQTT_CLIENT_ID="first")
    await one.start().ready()
    second = one.set(MQTT_CLIENT_ID="second").start()
    await second.ready()
    assert "already running there" in second.output
    assert await second.stop() == 0
