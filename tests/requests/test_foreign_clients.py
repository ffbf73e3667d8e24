"""Clients of others meet a worker over TCP: mosquitto_rr and MQTT.js get its replies. (Paho's is in test_request.py.)"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from typing import TypeVar

import pytest

from tests.support.mosquitto import Mosquitto
from tests.support.worker import ROOT, Projects, Worker

MOSQUITTO_RR = shutil.which("mosquitto_rr")
NODE = shutil.which("node")
T = TypeVar("T")
GREETING = """
    from core.errors import Reject
    from core.router import Router

    router = Router()

    @router.on("greet/<name>", qos=1, reply_errors=True)
    async def greet(context):
        name = context["params"]["name"]
        if name == "nobody":
            raise Reject("there is nobody to greet")
        asked = context["properties"].get("user_property", [])
        told = {"user_property": [("from", "the worker"), ("from", "again")]}
        await context["publish"](f"greeted/{name}", context["payload"], qos=1, properties=told)
        return {"hello": name, "asked": asked}
"""


@pytest.fixture(params=["native", "aiomqtt"])
async def worker(broker: Mosquitto, project: Projects, request: pytest.FixtureRequest) -> Worker:
    """Give a running worker that replies."""
    made = project({"greeting": GREETING}, MQTT_URL=broker.url, MQTT_TRANSPORT=request.param)
    return await made.start().ready()


async def run(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, complained = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, said.decode(), complained.decode()


def require(found: T | None, what: str, variable: str) -> T:
    """Return what was found; skip the test where there is nothing, or fail it where there has to be (in CI)."""
    if found:
        return found
    if os.environ.get(variable):
        pytest.fail(f"{what}, and {variable} is set")
    pytest.skip(what)


async def test_mosquitto_rr_gets_its_answer(broker: Mosquitto, worker: Worker) -> None:
    program = require(MOSQUITTO_RR, "mosquitto_rr is not installed", "ROUTEMQ_REQUIRE_MOSQUITTO")

    async def ask(name: str, *more: str) -> list[str]:
        where = ("-V", "mqttv5", "-h", "127.0.0.1", "-p", str(broker.port), "-W", "15", "-q", "1")
        what = ("-t", f"greet/{name}", "-e", "answers/rr", "-m", "{}")
        code, said, complained = await run(program, *where, *what, *more)
        assert (code, complained) == (0, "")
        return said.splitlines()

    (answer,) = await ask("ann")
    assert json.loads(answer) == {"hello": "ann", "asked": []}
    asked = ("-D", "publish", "user-property", "unit", "celsius", "-D", "publish", "correlation-data", "no. 7")
    answer, correlation = await ask("bob", *asked, "-F", "%p\\n%D")
    assert json.loads(answer) == {"hello": "bob", "asked": [["unit", "celsius"]]}
    assert correlation == "no. 7"
    (answer,) = await ask("nobody")
    assert json.loads(answer)["error"]["message"] == "there is nobody to greet"


async def test_an_mqtt_js_client_sends_and_receives_with_user_properties(broker: Mosquitto, worker: Worker) -> None:
    node = require(NODE, "node is not installed", "ROUTEMQ_REQUIRE_MQTTJS")
    installed = (ROOT / "node_modules" / "mqtt" / "package.json").exists()
    require(installed, "MQTT.js is not in node_modules: npm install --no-save mqtt@5", "ROUTEMQ_REQUIRE_MQTTJS")
    code, said, complained = await run(node, str(ROOT / "tests" / "requests" / "client.cjs"), broker.url, "eve")
    assert (code, complained) == (0, ""), said + complained
    heard = {message["topic"]: message for message in map(json.loads, said.splitlines())}
    assert heard["answers/js"]["body"] == {"hello": "eve", "asked": [["unit", "celsius"], ["tag", "a"], ["tag", "b"]]}
    assert heard["answers/js"]["correlation"] == "question 1"
    assert heard["answers/js"]["contentType"] == "application/json"
    assert heard["greeted/eve"]["body"] == {"value": 21.5}
    assert heard["greeted/eve"]["userProperties"] == {"from": ["the worker", "again"]}
