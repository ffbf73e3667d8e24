"""The example of its own under examples/meters: its tests pass, its migrations are complete, and it runs."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import cbor2
import pytest

from tests.support.mosquitto import free_pair
from tests.support.waiting import until
from tests.support.worker import ROOT, Project, Projects, Publishers


@pytest.fixture
def meters(project: Projects, tmp_path: Path) -> Project:
    """The example, copied to where it can leave files."""
    folder = tmp_path / "meters"
    shutil.copytree(ROOT / "examples" / "meters", folder, ignore=shutil.ignore_patterns("storage", "__pycache__", ".*"))
    return Project(folder).set(MQTT_URL=f"embedded://127.0.0.1:{free_pair()}")


async def test_its_tests_pass(meters: Project) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=meters.folder, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    assert "passed" in said


async def test_its_models_are_what_its_migrations_make(meters: Project) -> None:
    assert (await meters.command("db", "check"))[0] == 0


async def test_it_stores_what_a_meter_sends(meters: Project, publisher: Publishers) -> None:
    worker = await meters.start().ready()
    device = await publisher(meters)
    body = cbor2.dumps({"kwh": 1234.5, "taken_at": datetime(2026, 11, 25, tzinfo=UTC), "voltage": 230.4})
    await device.publish("meters/M1/readings", body, qos=1)
    await device.publish("meters/M1/readings", b"\xa1", qos=1)
    await until(lambda: meters.count("readings") == 1 and meters.count("routemq_dead_letters") == 1)
    assert meters.rows("SELECT serial, kwh, voltage FROM readings") == [("M1", 1234.5, 230.4)]
    assert await worker.stop() == 0
