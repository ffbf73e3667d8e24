"""request() in the handlers of a real worker, and in a script beside it; the worker's status."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from core.mqtt.publication import Publication
from core.session.session import Session
from core.transport.connect import connector
from core.transport.connection import Subscription
from tests.requests.conftest import MakeDevices
from tests.support.mosquitto import Mosquitto
from tests.support.recorder import Recorder
from tests.support.waiting import until
from tests.support.worker import ROOT, Project, Projects, Worker
from tests.transport.conftest import options

ASKING = """
    from core.publisher import publish
    from core.request import request
    from core.router import Router

    router = Router()

    @router.on("readings/<device>", qos=1, delivery="{delivery}")
    async def ask(context):
        device = context["params"]["device"]
        answer = await request(f"devices/{{device}}/commands", context["payload"], timeout=20)
        await publish(f"results/{{device}}", answer, qos=1)
"""


class Watcher(Recorder):
    """Remembers what comes on a filter."""

    def __init__(self, broker: Mosquitto, topic_filter: str) -> None:
        super().__init__()
        connect = connector(options(broker.url, clean_start=True))
        self.session = Session(connect, "test", [Subscription(topic_filter, 1)])


Watch = Callable[[str], Awaitable[Watcher]]
"""Subscribes to a filter, and returns what hears what comes on it."""


@pytest.fixture
async def watch(broker: Mosquitto) -> AsyncIterator[Watch]:
    made: list[Watcher] = []

    async def make(topic_filter: str) -> Watcher:
        heard = Watcher(broker, topic_filter)
        made.append(heard)
        heard.session.start(heard)
        await heard.session.connected()
        return heard

    yield make
    for heard in made:
        await heard.session.stop()


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_handlers_that_ask_do_not_wait_for_each_other_at_the_receive_maximum(
    broker: Mosquitto, project: Projects, devices: MakeDevices, watch: Watch, delivery: str
) -> None:
    devices()
    made = project({"asking": ASKING.format(delivery=delivery)}, MQTT_URL=broker.url, MQTT_RECEIVE_MAXIMUM=2)
    worker = await made.start().ready()
    heard = await watch("results/#")
    for n in range(60):
        await heard.session.publish(Publication(f"readings/{n}", b'{"n": %d}' % n, qos=1))
    await until(lambda: len({message.topic for message in heard.messages}) == 60)
    assert all(json.loads(message.body) == {"echo": int(message.topic[8:])} for message in heard.messages)
    assert await worker.stop() == 0


SCRIPT = """
import asyncio
from app.models.note import Note
from bootstrap.script import script
from core.model import Model
from core.publisher import publish
from core.request import request

async def main():
    async with script():
        print("notes", len(await Model.all(Note)))
        print("answer", await request("devices/1/commands", {"n": 5}))
        await publish("seen", "yes", qos=1)

asyncio.run(main())
"""
NOTE = """
    from sqlalchemy.orm import Mapped, mapped_column
    from core.model import Model

    class Note(Model):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
"""
NOTHING = """
    from core.router import Router

    router = Router()

    @router.on("nothing/<name>")
    async def nothing(context):
        pass
"""
ANSWERING = """
    from core.router import Router

    router = Router()

    @router.on("devices/<name>/commands", qos=1)
    async def answer(context):
        asked = context["properties"]
        told = {"correlation_data": asked["correlation_data"]}
        await context["publish"](asked["response_topic"], {"echo": context["payload"]["n"]}, qos=1, properties=told)
"""


async def run(made: Project, source: str) -> tuple[int, str]:
    (made.folder / "script.py").write_text(source)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "script.py",
        cwd=made.folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_a_script_has_the_database_and_the_embedded_broker_of_the_worker(project: Projects) -> None:
    made = project({"answering": ANSWERING}, {"note": NOTE})
    worker = await made.start().ready()
    code, said = await run(made, SCRIPT)
    assert (code, said.splitlines()) == (0, ["notes 0", "answer {'echo': 5}"])
    assert await worker.stop() == 0


async def test_a_script_without_a_worker_has_the_database_and_says_what_is_missing(project: Projects) -> None:
    made = project({"nothing": NOTHING}, {"note": NOTE})
    worker = await made.start().ready()
    await worker.stop()
    code, said = await run(made, SCRIPT)
    assert code == 1
    assert said.splitlines()[0] == "notes 0"
    assert "Start the worker first" in said.splitlines()[-1]


@pytest.fixture
async def worker(broker: Mosquitto, project: Projects, watch: Watch) -> tuple[Worker, Watcher]:
    """Give a running worker with a status, and what is heard of it."""
    made = project(
        {"nothing": NOTHING}, MQTT_URL=broker.url, MQTT_CLIENT_ID="w1", MQTT_STATUS_TOPIC="fleet/<client_id>/status"
    )
    heard = await watch("fleet/#")
    running = await made.start().ready()
    await until(lambda: heard.messages)
    return running, heard


def told(heard: Recorder) -> list[tuple[str, str]]:
    return [(message.topic, json.loads(message.body)["status"]) for message in heard.messages]


ONLINE, OFFLINE = ("fleet/w1/status", "online"), ("fleet/w1/status", "offline")


async def retained(watch: Watch) -> list[tuple[str, str]]:
    late = await watch("fleet/#")
    await until(lambda: late.messages)
    assert late.messages[0].retain
    return told(late)


async def test_a_worker_that_is_killed_is_offline_by_its_will(worker: tuple[Worker, Watcher], watch: Watch) -> None:
    running, heard = worker
    assert told(heard) == [ONLINE]
    running.kill()
    await until(lambda: told(heard) == [ONLINE, OFFLINE])
    assert json.loads(heard.messages[1].body)["since"] is None
    assert await retained(watch) == [OFFLINE]


async def test_a_worker_that_is_stopped_says_so_itself(worker: tuple[Worker, Watcher], watch: Watch) -> None:
    running, heard = worker
    assert await running.stop() == 0
    await until(lambda: told(heard) == [ONLINE, OFFLINE])
    assert json.loads(heard.messages[1].body)["since"] is not None
    assert await retained(watch) == [OFFLINE]


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_worker_is_online_again_when_its_broker_is(
    worker: tuple[Worker, Watcher], watch: Watch, broker: Mosquitto, how: str
) -> None:
    running, heard = worker
    await asyncio.to_thread(getattr(broker, how))
    await asyncio.to_thread(broker.start)
    await running.says("connected again")
    await until(lambda: heard.messages[-1].body and told(heard)[-1] == ONLINE and len(heard.connacks) == 2)
    assert await retained(watch) == [ONLINE]
    assert await running.stop() == 0
