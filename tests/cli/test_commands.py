"""The commands of main.py, as a person runs them."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from bootstrap.commands.replay import TopicTemplate
from bootstrap.commands.show import routes_table, settings_table
from bootstrap.commands.simulate import readings
from bootstrap.discovery import discover
from config.settings import Settings
from core import __version__
from core.errors import TopicError
from tests.support.waiting import until
from tests.support.worker import Projects


async def test_version_and_help(project: Projects) -> None:
    one = project()
    assert await one.command("--version") == (0, f"RouteMQ {__version__}\n")
    code, said = await one.command("--help")
    assert code == 0
    for command in ("run", "config", "routes", "publish", "simulate", "replay"):
        assert f" {command} " in said
    assert (await one.command("no-such-command"))[0] == 2


async def test_routes_are_shown_with_all_that_matters(project: Projects) -> None:
    code, said = await project().command("routes")
    assert code == 0
    line = next(line for line in said.splitlines() if line.startswith("devices/<device_id>/data"))
    for part in ("devices/+/data", " 1 ", "SensorController.handle_sensor_data", "app/routers/devices.py:"):
        assert part in line
    source = """
    from core.router import Router

    router = Router()

    @router.on("wide/#", qos=0)
    async def wide(context):
        pass

    @router.on("x/<int:n>", qos=1, codec="raw", order_by="n", timeout=5)
    async def numbers(context):
        pass
    """
    code, said = await project({"some": source}).command("routes")
    assert "codec=raw, order_by=n, timeout=5" in said


async def test_config_shows_values_and_where_they_come_from(project: Projects) -> None:
    one = project(DATABASE_URL="postgresql+asyncpg://me:s3cr3t@host/x", MQTT_KEEPALIVE=30)
    code, said = await one.command("config")
    assert code == 0
    lines = {line.split()[0]: line.split()[1:] for line in said.splitlines()}
    assert lines["MQTT_KEEPALIVE"] == ["30", ".env"]
    assert lines["DATABASE_URL"] == ["postgresql+asyncpg://me:***@host/x", ".env"]
    assert lines["DB_POOL_SIZE"] == ["10", "default"]
    assert "s3cr3t" not in said


def test_nothing_is_cut_off_on_a_narrow_terminal() -> None:
    narrow = Console(file=io.StringIO(), width=60)
    settings_table(Settings(), narrow)
    routes_table(discover(), narrow)
    said = narrow.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line) for line in said.splitlines()) == 60
    assert "…" not in said


async def test_publish_sends_one_message(project: Projects) -> None:
    one = project()
    await one.start().ready()
    assert await one.command("publish", "devices/a/data", '{"type": "t", "value": 2}') == (0, "")
    assert await one.command("publish", "devices/a/data", '{"type": "t", "value": 3}', "--qos", "0", "--retain") == (0, "")
    await until(lambda: one.count("sensor_readings") == 2)
    code, said = await one.command("publish", "devices/+/data", "x")
    assert (code, said.count("\n")) == (1, 1)
    assert "wildcards" in said


async def test_replay_makes_topics_of_fields_and_says_what_it_changed(project: Projects) -> None:
    one = project()
    await one.start().ready()
    lines = [
        {"model": "A", "id": 1},
        {"model": "B/C+#", "id": 2},
        {"model": "D"},
        {"model": None, "id": "x"},
        {"model": "", "id": {"a": 1}},
    ]
    file = one.folder / "data.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + "\nnot json\n[1]\n")
    code, said = await one.command("replay", "data.jsonl", "--topic", "rtl_433/<model>/{id}", "--rate", "1000")
    assert code == 1
    assert "line 7 is skipped" in said
    assert "line 8 is skipped: not a JSON object" in said
    assert "'B/C+#' cannot be a topic level, so 'B_C__' was used" in said
    assert "5 sent, 5 acknowledged" in said
    await until(lambda: one.count("rtl433_readings") == 5)
    stored = sorted(one.rows("SELECT model, device_id FROM rtl433_readings"))
    assert [device for _, device in stored] == sorted(
        ['{"a": 1}', "1", "2", "unknown", "x"], key=[d for _, d in stored].index
    )
    code, said = await one.command("replay", "no-such-file", "--topic", "x")
    assert code == 2


@pytest.mark.parametrize("template", ["", "a/+/<x>", "a/#"])
def test_a_template_that_makes_no_topics_is_refused(template: str) -> None:
    with pytest.raises(TopicError):
        TopicTemplate(template)


def test_simulated_readings_are_believable() -> None:
    made = [(topic, json.loads(body)) for topic, body in readings(4, 400)]
    assert len({topic for topic, _ in made}) == 4
    for topic, reading in made:
        assert topic == f"devices/{topic.split('/')[1]}/data"
        assert set(reading) == {"type", "value", "unit", "timestamp"}
    humidity = [reading["value"] for _, reading in made if reading["type"] == "humidity"]
    assert 20 < min(humidity) <= max(humidity) < 90
    assert len(set(humidity)) > 10
