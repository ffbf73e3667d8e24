"""doctor: what it finds, one line each, and exit code 1 where run would not work."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.support.mosquitto import Mosquitto, free_pair, free_port
from tests.support.postgres import postgres
from tests.support.waiting import until
from tests.support.worker import Projects, Publishers


def findings(said: str) -> dict[str, tuple[str, str]]:
    return {line[6:20].strip(): (line[:6].strip(), line[20:]) for line in said.splitlines()}


async def test_all_is_well_before_the_first_start_and_beside_a_worker(project: Projects, publisher: Publishers) -> None:
    one = project()
    code, said = await one.command("doctor")
    found = findings(said)
    assert code == 0
    assert list(found) == ["settings", "routes", "broker", "database", "migrations", "dead letters", "backlog", "disk"]
    assert {state for state, _ in found.values()} == {"ok"}
    assert "embedded" in found["broker"][1]
    worker = await one.start().ready()
    await (await publisher(one)).publish("devices/a/data", b"nonsense", qos=1)
    await until(lambda: one.count("routemq_dead_letters") == 1)
    code, said = await one.command("doctor")
    found = findings(said)
    assert code == 0
    assert "MQTT 5" in found["broker"][1]
    assert found["dead letters"][0] == "warn"
    assert found["dead letters"][1].startswith("1 of at most 100,000")
    assert await worker.stop() == 0
    assert "taken over" not in worker.output


async def test_what_the_broker_can_do_and_the_database_is(project: Projects, tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path / "m", "max_packet_size 300000").start()
    code, said = await project(MQTT_URL=broker.url, DATABASE_URL=postgres().new_database()).command("doctor")
    found = findings(said)
    assert code == 1
    assert [name for name, (state, _) in found.items() if state == "fail"] == ["migrations"]
    assert found["migrations"][1] == "the database lacks 0001_create_tables: run python main.py db upgrade"
    assert "shared subscriptions, Receive Maximum 20, packets of at most 300,000 bytes" in found["broker"][1]
    assert "PostgreSQL 18" in found["database"][1]
    broker.stop()


async def test_everything_that_is_wrong_is_said_at_once(project: Projects) -> None:
    port = free_port()
    one = project(
        {"broken": "import no_such_module\n"},
        MQTT_URL=f"mqtt://u:s3cr3t@127.0.0.1:{port}",
        DATABASE_URL=f"postgresql+asyncpg://u:s3cr3t@127.0.0.1:{port}/x",
        MQTT_KEEP_ALIVE=5,
    )
    code, said = await one.command("doctor")
    found = findings(said)
    assert code == 1
    assert {name: state for name, (state, _) in found.items()} == {
        "settings": "warn",
        "routes": "fail",
        "broker": "fail",
        "database": "fail",
        "migrations": "ok",
        "dead letters": "fail",
        "backlog": "fail",
        "disk": "ok",
    }
    assert "no_such_module" in found["routes"][1]
    assert "cannot be reached" in found["broker"][1]
    assert "s3cr3t" not in said
    assert "Traceback" not in said


async def test_a_taken_port_is_found(project: Projects) -> None:
    port = free_pair()
    with socket.create_server(("127.0.0.1", port + 1)):
        code, said = await project(MQTT_URL=f"embedded://127.0.0.1:{port}").command("doctor")
    assert code == 1
    assert f"the embedded broker cannot listen on port {port + 1}" in findings(said)["broker"][1]
