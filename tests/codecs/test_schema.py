"""Routes with a schema: objects where it is met, a report where it is not."""

from __future__ import annotations

import dataclasses
import json
import time
from datetime import datetime
from types import GenericAlias
from typing import Annotated, Any, ForwardRef, Literal

import msgpack
import pytest
from pydantic import BaseModel, ConfigDict, Field, Json, field_validator
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from core.codecs import Limits
from core.codecs.payload import reader
from core.context import Context
from core.errors import PayloadError, RouteError, SchemaError
from core.mqtt.message import Message
from core.router import Router
from core.transport.connection import Subscription
from tests.support.memory_worker import running

LIMITS = Limits()


class Reading(BaseModel):
    value: float
    unit: str = "celsius"
    at: datetime | None = None


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    value: float


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Command(TypedDict):
    relay: Literal["on", "off"]


class Temperature(BaseModel):
    kind: Literal["temperature"]
    celsius: float


class Door(BaseModel):
    kind: Literal["door"]
    is_open: bool


class Checked(BaseModel):
    value: int

    @field_validator("value")
    @classmethod
    def even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("it must be even")
        return value


class Exact(BaseModel):
    number: int
    anything: Any = None
    ratio: float = 0


class Tree(BaseModel):
    children: list[Tree] = []


class Site(BaseModel):
    tree: Tree
    readings: list[Reading]
    note: Any = Field(default={"type": "list"})


Event = Annotated[Temperature | Door, Field(discriminator="kind")]


async def handler(context: Context[Any]) -> None:
    raise AssertionError(context)


def read(schema: Any, body: bytes, codec: str = "json") -> Any:
    return reader(codec, schema)(Message("t", body), LIMITS)


def report(schema: Any, body: bytes, codec: str = "json") -> list[str]:
    with pytest.raises(SchemaError) as raised:
        read(schema, body, codec)
    assert "\n" not in str(raised.value)
    return raised.value.report.splitlines()


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        (Reading, {"value": 1, "other": 2}, Reading(value=1)),
        (list[Reading], [{"value": 1}, {"value": 2}], [Reading(value=1), Reading(value=2)]),
        (Point, {"x": 1, "y": 2}, Point(1, 2)),
        (Command, {"relay": "on"}, {"relay": "on"}),
        (Event, {"kind": "door", "is_open": True}, Door(kind="door", is_open=True)),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (float, 21.5, 21.5),
        (Tree, {"children": [{"children": []}]}, Tree(children=[Tree()])),
    ],
)
@pytest.mark.parametrize("codec", ["json", "msgpack"])
def test_any_type_that_pydantic_takes(schema: Any, value: Any, expected: object, codec: str) -> None:
    body = json.dumps(value).encode() if codec == "json" else msgpack.packb(value)
    assert read(schema, body, codec) == expected


def test_text_is_checked_too() -> None:
    assert read(float, b"21.5", "text") == 21.5
    assert report(float, b"warm", "text") == ["the payload: got 'warm', expected a number"]


def test_a_report_has_a_line_for_each_fault() -> None:
    body = b'[{"value": "warm"}, {"unit": 5}, {"value": 1, "at": "yesterday"}, [], null, {"value": true, "unit": null}]'
    lines = report(list[Reading], body)
    assert lines[0] == "0.value: got 'warm', expected a number"
    assert lines[1] == "1.value: missing, expected this field; there was an object with unit"
    assert lines[2] == "1.unit: got 5, expected text"
    assert lines[3].startswith("2.at: got 'yesterday', expected a valid datetime")
    assert lines[4:6] == ["3: got an empty list, expected an object", "4: got null, expected an object"]
    assert lines[6:] == ["5.unit: got null, expected text"]


def test_strictness_and_further_fields_are_as_the_model_says() -> None:
    assert read(Reading, b'{"value": "1"}') == Reading(value=1)
    assert report(Strict, b'{"value": "1", "more": [1, 2]}') == [
        "value: got '1', expected a number",
        "more: got a list of 2, expected no field of this name",
    ]


@pytest.mark.parametrize(
    ("schema", "body", "line"),
    [
        (Event, b'{"kind": "window"}', "'door'"),
        (Event, b"{}", "kind"),
        (Checked, b'{"value": 3}', "value: got 3; it must be even"),
        (Command, b'{"relay": "perhaps"}', "relay: got 'perhaps', expected 'on' or 'off'"),
        (Reading, b"[]", "the payload: got an empty list, expected an object"),
        (dict[str, int], b'{"a\\nb": "x"}', "'a\\nb': got 'x', expected a whole number"),
        (Exact, b'{"number": 1.5}', "number: got 1.5, expected a whole number"),
    ],
)
def test_faults_are_told_in_words(schema: Any, body: bytes, line: str) -> None:
    (only,) = report(schema, body)
    assert line in only


def test_what_was_there_is_told_shortly() -> None:
    long = {"value": "x" * 5_000, "unit": list(range(50)), "at": {"k" * 3_000: 1, "b": 2}}
    for line in report(Reading, json.dumps(long).encode()):
        assert len(line) < 300
    (line,) = report(Reading, b'{"value": "\\u0000\\n\\u001b[31m"}')
    assert line.isprintable()
    (line,) = report(dict[str, int], json.dumps({"k" * 100_000: "x"}).encode())
    assert len(line) < 200


def test_many_faults_are_counted() -> None:
    lines = report(list[Reading], json.dumps([{}] * 500).encode())
    assert len(lines) == 51
    assert lines[-1] == "and 450 more"
    lines = report(list[Reading], json.dumps([{"value": 1}] * 10 + [{}] * 2_000).encode())
    assert lines[0] == "2,000 faults are too many to list. The first of them:"
    assert lines[1] == "10.value: missing, expected this field; there was an empty object"
    # Of a large list the first bad item is enough, as looking at millions takes seconds.
    lines = report(list[Reading], b"[" + b"1," * 1_000_000 + b"1]")
    assert lines == ["0: got 1, expected an object"]
    for codec, body in (
        ("json", b'{"tree": {}, "readings": [' + b"1," * 1_000_000 + b"1]}"),
        ("msgpack", msgpack.packb({"tree": {}, "readings": [1] * 1_000_000})),
    ):
        began = time.process_time()
        assert report(Site, body, codec) == ["readings.0: got 1, expected an object"]
        assert time.process_time() - began < 2
    many = {"tree": {}, "readings": [{"value": number} for number in range(10_000)]}
    assert read(Site, json.dumps(many).encode()).readings[-1] == Reading(value=9_999)
    lines = report(dict[str, int], json.dumps({str(number): "x" for number in range(2_000)}).encode())
    assert lines == ["2,000 faults are too many to list"]


def test_json_is_as_strict_as_without_a_schema() -> None:
    for number in (b"NaN", b"-Infinity", b"1e999", b"1E+0999", b"1" + b"0" * 400):
        with pytest.raises(PayloadError):
            read(Exact, b'{"number": 1, "ratio": %s}' % number)
    for body in (
        b"",
        b"{",
        b'{"number": 1}x',
        b'{"number": 1, "anything": "\xff"}',
        b'{"number": 1, "anything": "\\ud800"}',
    ):
        with pytest.raises(PayloadError) as raised:
            read(Exact, body)
        assert not isinstance(raised.value, SchemaError)
        assert "JSON" in str(raised.value)
    assert read(Exact, b'{"number": 1, "NaN": "Infinity"}').number == 1
    assert read(Exact, b'{"number": 1, "number": 2, "anything": {"a": 1, "a": 2}}') == Exact(number=2, anything={"a": 2})
    for large in (2**64, 10**60, 10**400):
        assert read(Exact, b'{"number": %d, "anything": [%d]}' % (large, large)) == Exact(number=large, anything=[large])


def test_json_within_json_is_told_as_a_field() -> None:
    class Wrapped(BaseModel):
        inner: Json[int]

    assert read(Wrapped, b'{"inner": "5"}').inner == 5
    (line,) = report(Wrapped, b'{"inner": "x"}')
    assert line.startswith("inner: got 'x'; Invalid JSON")
    deep = Limits(depth=500)
    body = b'{"number": 1, "anything": ' + b"[" * 300 + b"]" * 300 + b"}"
    assert reader("json")(Message("t", body), deep)["number"] == 1
    with pytest.raises(PayloadError, match="nested too deeply for a schema"):
        reader("json", Exact)(Message("t", body), deep)


def test_a_schema_that_cannot_be_is_refused_at_registration() -> None:
    class Opaque:
        pass

    for schema, said in (
        (Opaque, "Opaque"),
        (GenericAlias(list, ForwardRef("Nowhere")), "Nowhere"),
        (list[Opaque], "Opaque"),
    ):
        with pytest.raises(RouteError, match=said) as raised:
            Router().on("a", handler, schema=schema)
        assert "test_schema.py:" in str(raised.value)
        assert "\n" not in str(raised.value)


# -- through the worker ------------------------------------------------------------------------------------------------


async def test_the_handler_gets_the_object_and_the_dead_letter_the_report(caplog: pytest.LogCaptureFixture) -> None:
    router = Router()
    seen: list[float] = []

    @router.on("r/<name>", schema=Reading)
    async def handle(context: Context[Reading]) -> None:
        seen.append(context["payload"].value)

    async with running(router) as worker:
        await worker.send("r/a", b'{"value": 1.5}')
        await worker.send("r/a", b'{"value": "warm", "unit": 5, "at": "\\u0000"}')
        await worker.send("r/a", b'{"value": 2.5}')
        await worker.settled()
        (letter,) = worker.dead_letters.letters
    assert seen == [1.5, 2.5]
    assert (letter.error, letter.attempts) == ("SchemaError", 1)
    first, second, third = letter.reason.split("\n")
    assert first == "SchemaError: value: got 'warm', expected a number"
    assert second == "unit: got 5, expected text"
    assert third.startswith("at: got '\\x00', expected a valid datetime")
    (line,) = [record.getMessage() for record in caplog.records if "dead letter" in record.getMessage()]
    assert "value: got 'warm', expected a number; unit: got 5" in line
    assert "\n" not in line


async def test_a_report_is_bounded() -> None:
    router = Router()
    router.on("r", handler, schema=list[Reading])
    async with running(router) as worker:
        await worker.send("r", json.dumps([{"value": "x" * 100, "unit": 1, "at": "y" * 100}] * 40).encode())
        await worker.settled()
    assert 4_000 < len(worker.dead_letters.letters[0].reason) <= 8_000


async def test_a_wrong_parameter_and_a_wrong_payload_are_in_one_report() -> None:
    router = Router()
    router.on("m/<int:meter>/<uuid:part>", handler, schema=Reading)
    router.on("plain/<int:meter>", handler)
    async with running(router) as worker:
        session, _ = worker.broker.session("worker", 1000)
        worker.broker.subscribe(session, Subscription("#", 1))
        for topic, body in (("m/x/y", b"{}"), ("m/x/y", b"no JSON"), ("m/x/y", b'{"value": 1}'), ("plain/x", b"no")):
            await worker.send(topic, body)
            await worker.settled()
    reasons = [letter.reason for letter in worker.dead_letters.letters]
    refused = "NoRouteError: no route takes the topic 'm/x/y': 'x' is no int for 'meter', 'y' is no uuid for 'part' in "
    assert all(reason.startswith(refused) for reason in reasons[:3])
    assert reasons[0].split("\n")[1:] == ["value: missing, expected this field; there was an empty object"]
    assert reasons[1].split("\n")[1].startswith("the body is not JSON")
    assert "\n" not in reasons[2] + reasons[3]


async def test_in_a_batch_a_bad_one_is_refused_alone() -> None:
    router = Router()
    seen: list[Reading] = []

    @router.on("r/<name>", schema=Reading, batch=100)
    async def handle(contexts: list[Context[Reading]]) -> None:
        seen.extend(context["payload"] for context in contexts)

    async with running(router) as worker:
        for number in range(10):
            await worker.send(f"r/{number}", b'{"value": %d}' % number if number % 3 else b'{"value": []}')
        await worker.settled()
    assert seen == [Reading(value=number) for number in range(10) if number % 3]
    assert {letter.reason for letter in worker.dead_letters.letters} == {
        "SchemaError: value: got an empty list, expected a number"
    }
    assert len(worker.dead_letters.letters) == 4


async def test_limits_are_those_of_the_dispatch() -> None:
    router = Router()
    router.on("r", handler)
    async with running(router, limits=Limits(bytes=10, depth=2)) as worker:
        await worker.send("r", b'"long enough"')
        await worker.send("r", b"[[[1]]]")
        await worker.settled()
    large, deep = (letter.reason for letter in worker.dead_letters.letters)
    assert "13 bytes. At most 10" in large
    assert "more than 2 lists and maps" in deep
