"""Whatever a device sends costs that message alone: the worker goes on, neighbours are stored, nothing is lost silently."""

from __future__ import annotations

import gzip
import json

from core.mqtt.message import Properties
from tests.support.waiting import until
from tests.support.worker import Projects, Publishers

GOOD = json.dumps({"type": "t", "value": 1.5}).encode()
BAD = {
    "not JSON": b"temperature=21",
    "empty": b"",
    "invalid UTF-8": b'{"value": "\xff\xfe"}',
    "a megabyte of no JSON": b"x" * 1024 * 1024,
    "NaN": b'{"type": "t", "value": NaN}',
    "brackets": b"[" * 100_000,
    "closed brackets": b"[" * 100_000 + b"]" * 100_000,
    "a number without end": b'{"value": ' + b"9" * 100_000 + b"}",
    "not an object": b"42",
    "null": b"null",
    "a field missing": b'{"type": "t"}',
    "a field of another type": b'{"type": "t", "value": "warm"}',
    "a surrogate alone": b'{"type": "\\ud800", "value": 1}',
    "a zero byte in text": b'{"type": {"a": "\\u0000"}, "value": 1}',
}


async def test_bad_payloads_are_dead_letters_and_cost_no_neighbour(project: Projects, publisher: Publishers) -> None:
    one = project(RETRY_FIRST=0.01)
    worker = await one.start().ready()
    out = await publisher(one)
    for number, body in enumerate(BAD.values()):
        await out.publish(f"devices/good-{number}/data", GOOD, qos=1)
        await out.publish("devices/bad/data", body, qos=1)
        await out.publish("devices/bad/data", GOOD, qos=1)
    await until(lambda: one.count("sensor_readings") == 2 * len(BAD))
    await until(lambda: one.count("routemq_dead_letters") == len(BAD))
    stored = one.rows("SELECT topic, body, route, reason, attempts FROM routemq_dead_letters ORDER BY id")
    assert [row[1] for row in stored] == list(BAD.values())
    assert {row[0] for row in stored} == {"devices/bad/data"}
    assert {row[2] for row in stored} == {"devices/<device_id>/data"}
    reasons = dict(zip(BAD, (row[3] for row in stored), strict=True))
    assert "the body is empty" in reasons["empty"]
    assert "UTF-8" in reasons["invalid UTF-8"]
    assert "not JSON" in reasons["not JSON"]
    assert "nested too deeply" in reasons["brackets"]
    assert "KeyError: 'value'" in reasons["a field missing"]
    attempts = dict(zip(BAD, (row[4] for row in stored), strict=True))
    assert attempts["not JSON"] == 1
    # No waiting heals a KeyError.
    assert attempts["a field missing"] == 1
    assert await worker.stop() == 0
    total = 3 * len(BAD)
    assert f"stopped: {total} received, {2 * len(BAD)} done, {len(BAD)} dead-lettered, 0 in hand" in worker.output
    assert "[topic devices/bad/data, route devices/<device_id>/data, attempt 1]" in worker.output


async def test_a_schema_and_limits_of_the_settings(project: Projects, publisher: Publishers) -> None:
    one = project(
        {
            "readings": """
            from pydantic import BaseModel
            from core.context import Context
            from core.router import Router

            router = Router()

            class Reading(BaseModel):
                value: float
                unit: str = "celsius"

            @router.on("readings/<int:device>", schema=list[Reading], codec="auto")
            async def store(context: Context[list[Reading]]) -> None:
                print("value", context["payload"][0].value, flush=True)
            """
        },
        {},
        MAX_PAYLOAD_BYTES=2_000,
        MAX_PAYLOAD_DEPTH=3,
    )
    worker = await one.start().ready()
    out = await publisher(one)
    packed: Properties = {"content_type": "application/json", "user_property": [("content-encoding", "gzip")]}
    await out.publish("readings/1", gzip.compress(b'[{"value": 1.25}]'), qos=1, properties=packed)
    await out.publish("readings/1", gzip.compress(b'[{"value": 1.25}]' + b" " * 2_000), qos=1, properties=packed)
    await out.publish("readings/1", b"[" + b" " * 2_000 + b"]", qos=1)
    await out.publish("readings/1", b'[{"value": [[1]]}]', qos=1)
    await out.publish("readings/1", b'[{"value": "warm", "unit": null}]', qos=1)
    await out.publish("readings/one", b'[{"value": "warm"}]', qos=1)
    await worker.says("value 1.25")
    await until(lambda: one.count("routemq_dead_letters") == 5)
    reasons = sorted(reason for (reason,) in one.rows("SELECT reason FROM routemq_dead_letters"))
    assert "no route takes the topic 'readings/one': 'one' is no int for 'device'" in reasons[0]
    assert reasons[0].endswith("\n0.value: got 'warm', expected a number")
    assert "2,002 bytes. At most 2,000 are accepted" in reasons[1]
    assert "more than 2,000 bytes when it is decompressed (gzip)" in reasons[2]
    assert "more than 3 lists and maps" in reasons[3]
    assert reasons[4] == "SchemaError: 0.value: got 'warm', expected a number\n0.unit: got null, expected text"
    assert await worker.stop() == 0
    code, said = await one.command("dead-letters", "list")
    assert code == 0
    # A line for each, however many lines its reason has.
    assert len([line for line in said.splitlines() if "readings/" in line]) == 5
    code, said = await one.command("dead-letters", "replay", "--all")
    assert code == 1
    assert "0 replayed and removed, 5 kept after failing again" in said
    assert "At most 2,000 are accepted" in said


async def test_a_megabyte_that_is_good_is_stored(project: Projects, publisher: Publishers) -> None:
    one = project(
        {
            "big": """
            from app.models.document import Document
            from core.model import Model
            from core.router import Router

            router = Router()

            @router.on("documents/<name>")
            async def store(context):
                await Model.create(Document, name=context["params"]["name"], text=context["payload"]["text"])
            """
        },
        {
            "document": """
            from sqlalchemy.orm import Mapped, mapped_column
            from core.model import Base

            class Document(Base):
                __tablename__ = "documents"
                id: Mapped[int] = mapped_column(primary_key=True)
                name: Mapped[str]
                text: Mapped[str]
            """
        },
    )
    await one.start().ready()
    out = await publisher(one)
    await out.publish("documents/long", json.dumps({"text": "x" * 1024 * 1024}).encode(), qos=1)
    await until(lambda: one.count("documents") == 1)
    assert one.rows("SELECT name, length(text) FROM documents") == [("long", 1024 * 1024)]


async def test_topics_of_any_depth_and_topics_that_no_route_takes(project: Projects, publisher: Publishers) -> None:
    one = project(
        {
            "depth": """
            from core.router import Router

            router = Router()

            @router.on("seen/<int:number>", codec="raw")
            async def number(context):
                pass

            @router.on("one", codec="raw")
            async def one_level(context):
                print("one level", flush=True)

            @router.on("deep/<path:rest>", codec="raw")
            async def deep(context):
                print("deep", context["params"]["rest"].count("/"), flush=True)
            """
        },
        {},
    )
    worker = await one.start().ready()
    out = await publisher(one)
    await out.publish("one", b"x", qos=1)
    await out.publish("/".join(["deep"] * 60), b"x", qos=1)
    await out.publish("seen/nothing", b"lost?", qos=1)
    await out.publish("seen/5", b"x", qos=1)
    await out.publish("nobody/listens", b"x", qos=1)
    await until(lambda: one.count("routemq_dead_letters") == 1)
    await worker.says("one level")
    await worker.says("deep 58")
    ((topic, body, route, error, reason),) = one.rows("SELECT topic, body, route, error, reason FROM routemq_dead_letters")
    assert (topic, body, route, error) == ("seen/nothing", b"lost?", None, "NoRouteError")
    assert "seen/<int:number>" in reason
    assert await worker.stop() == 0
    assert "stopped: 4 received, 3 done, 1 dead-lettered" in worker.output


async def test_what_a_handler_raises_costs_its_message_alone(project: Projects, publisher: Publishers) -> None:
    one = project(
        {
            "raising": """
            import asyncio, sys
            from core.errors import Reject
            from core.router import Router

            router = Router()

            class Odd(BaseException):
                pass

            @router.on("raise/<what>", codec="raw")
            async def store(context):
                what = context["params"]["what"]
                if what == "exit":
                    sys.exit(3)
                if what == "cancelled":
                    raise asyncio.CancelledError
                if what == "reject":
                    raise Reject("not ours")
                if what == "lines":
                    raise ValueError("a\\nb\\0c")
                if what == "recursion":
                    return await store(context)
                if what == "group":
                    async with asyncio.TaskGroup() as group:
                        group.create_task(asyncio.sleep(0))
                        group.create_task(fail())

            async def fail():
                raise ValueError("in a group")
            """
        },
        {},
        RETRY_ATTEMPTS=1,
    )
    worker = await one.start().ready()
    out = await publisher(one)
    kinds = ["exit", "cancelled", "reject", "lines", "recursion", "group"]
    for kind in kinds:
        await out.publish(f"raise/{kind}", b"x", qos=1)
        await out.publish("raise/nothing", b"x", qos=1)
    await until(lambda: one.count("routemq_dead_letters") == len(kinds))
    errors = dict(one.rows("SELECT topic, error FROM routemq_dead_letters"))
    assert errors == {
        "raise/exit": "SystemExit",
        "raise/cancelled": "CancelledError",
        "raise/reject": "Reject",
        "raise/lines": "ValueError",
        "raise/recursion": "RecursionError",
        "raise/group": "ExceptionGroup",
    }
    assert await worker.stop() == 0
    assert f"{len(kinds)} done, {len(kinds)} dead-lettered" in worker.output
