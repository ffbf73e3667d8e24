"""MessagePack, CBOR and Protocol Buffers: what comes in and what goes out."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import cbor2
import msgpack
import pytest
from google.protobuf import duration_pb2, struct_pb2, wrappers_pb2
from pydantic import BaseModel

from core.codecs import Codec, Limits, protobuf
from core.codecs.cbor import Cbor
from core.codecs.msgpack import MessagePack
from core.codecs.payload import reader
from core.codecs.protocol_buffers import to_dict
from core.errors import PayloadError, SchemaError
from core.mqtt.message import Message
from tests.support.protobuf_messages import Node, Other, Reading, Readings

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Kind(Enum):
    METER = "meter"


class Number(IntEnum):
    ONE = 1


class Model(BaseModel):
    at: datetime
    raw: bytes


@dataclasses.dataclass
class Point:
    x: int


class Row:
    def to_dict(self) -> dict[str, UUID]:
        return {"id": UUID(int=1)}


VALUE: dict[Any, Any] = {
    "at": AT,
    "naive": AT.replace(tzinfo=None),
    "day": date(2026, 1, 2),
    "id": UUID(int=1),
    "price": Decimal("1.10"),
    "row": Row(),
    "point": Point(3),
    "model": Model(at=AT, raw=b"\xff"),
    "pair": (1, 2),
    "kind": Kind.METER,
    "number": Number.ONE,
    "raw": b"\x00",
    5: "a key that is no text",
}


def test_msgpack_takes_what_handlers_have() -> None:
    assert MessagePack().decode(MessagePack().encode(VALUE)) == VALUE | {
        "naive": "2026-01-02T03:04:05",
        "day": "2026-01-02",
        "id": str(UUID(int=1)),
        "price": "1.10",
        "row": {"id": str(UUID(int=1))},
        "point": {"x": 3},
        "model": {"at": AT, "raw": b"\xff"},
        "pair": [1, 2],
        "kind": "meter",
    }


def test_cbor_takes_what_handlers_have() -> None:
    assert Cbor().decode(Cbor().encode(VALUE | {"large": 2**70, "small": -(2**70)})) == VALUE | {
        "naive": AT,
        "day": date(2026, 1, 2),
        "row": {"id": UUID(int=1)},
        "point": {"x": 3},
        "model": {"at": AT, "raw": b"\xff"},
        "pair": [1, 2],
        "kind": "meter",
        "large": 2**70,
        "small": -(2**70),
    }


@pytest.mark.parametrize("codec", [MessagePack(), Cbor(), protobuf(Reading)])
def test_what_cannot_be_written_is_told_in_one_line(codec: Codec) -> None:
    endless: list[object] = []
    endless.append(endless)
    for value in (object(), [object()], endless, {"at": object()}):
        with pytest.raises(PayloadError, match=f"{type(value).__name__} cannot be written as"):
            codec.encode(value)


@pytest.mark.parametrize(
    ("codec", "body", "said"),
    [
        (MessagePack(), b"", "the body is empty. MessagePack is expected"),
        (MessagePack(), b"\x92\x01", "cut off, or a length in it is wrong"),
        (MessagePack(), b"\x01\x02", "something follows after its end"),
        (MessagePack(), b"\xc1", "a byte that MessagePack does not know"),
        (MessagePack(), b"\x81\x90\x01", "a list or a map stands as a key"),
        (MessagePack(), b"\xa1\xff", "utf-8"),
        (MessagePack(), b"\xc7\x0c\xff" + b"\xff" * 12, "nanoseconds"),
        (Cbor(), b"", "the body is empty. CBOR is expected"),
        (Cbor(), b"\x82\x01", "cut off, or a length in it is wrong"),
        (Cbor(), b"\x01\x02", "something follows after its end"),
        (Cbor(), b"\xff", "break code"),
        (Cbor(), b"\x61\xff", "error decoding text string"),
        (Cbor(), b"\xc0\x61a", "datetime"),
        (protobuf(Reading), b"\x0a\xff", "is not a plant.Reading"),
        (protobuf(Reading), b"\x0a\x01\xff", "is not a plant.Reading"),
        (protobuf(Reading), b"temperature=21", "is not a plant.Reading"),
        (
            protobuf(Reading),
            Other(text="x", number=1).SerializeToString(),
            r"it has none of its fields, but unknown ones .*numbers 15, 16",
        ),
    ],
)
def test_what_is_none_is_refused_with_the_reason(codec: Codec, body: bytes, said: str) -> None:
    with pytest.raises(PayloadError, match=said) as raised:
        codec.decode(body)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) <= 300


def test_values_of_their_own() -> None:
    assert Cbor().decode(cbor2.dumps({"a": AT, "u": UUID(int=7), "d": Decimal("-1.50")})) == {
        "a": AT,
        "u": UUID(int=7),
        "d": Decimal("-1.50"),
    }
    assert Cbor().decode(b"\xa2\x61a\x01\x61a\x02") == {"a": 2}
    assert MessagePack().decode(b"\x82\xa1a\x01\xa1a\x02") == {"a": 2}
    assert MessagePack().decode(msgpack.packb({1: b"\xff", "at": msgpack.Timestamp(1)})) == {
        1: b"\xff",
        "at": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
    }


def _reading() -> Any:
    more = struct_pb2.Struct()
    more.update({"a": [1, None, {"b": "c"}], "d": True})
    return Reading(name="m", value=2.5, raw=b"\xff", kind=1, counts=[1, 2], limits={"low": 0.5}, at=AT, battery=0, more=more)


def test_protobuf_messages_come_as_they_are_and_as_plain_values() -> None:
    codec = protobuf(Reading)
    body = _reading().SerializeToString()
    assert codec.decode(body) == _reading()
    assert codec.decode(b"") == Reading()
    assert to_dict(_reading()) == {
        "name": "m",
        "value": 2.5,
        "raw": b"\xff",
        "kind": 1,
        "counts": [1, 2],
        "limits": {"low": 0.5},
        "at": AT,
        "battery": 0,
        "more": {"a": [1, None, {"b": "c"}], "d": True},
    }
    # Their absence cannot be told, but for an optional field and for messages.
    assert to_dict(Reading()) == {"name": "", "value": 0, "raw": b"", "kind": 0, "counts": [], "limits": {}}
    assert to_dict(Readings(readings=[Reading(name="a")]))["readings"][0]["name"] == "a"
    assert to_dict(Node(node=Node(n=2))) == {"node": {"n": 2}, "n": 0}
    assert to_dict(duration_pb2.Duration(seconds=90)).total_seconds() == 90
    assert to_dict(wrappers_pb2.DoubleValue(value=1.5)) == 1.5


def test_protobuf_takes_messages_fields_and_models() -> None:
    codec = protobuf(Reading)

    class Plain(BaseModel):
        name: str
        raw: bytes

    assert codec.decode(codec.encode(_reading())) == _reading()
    assert codec.decode(codec.encode({"name": "a", "kind": "METER", "at": AT})) == Reading(name="a", kind=1, at=AT)
    assert codec.decode(codec.encode(Plain(name="a", raw=b"\xff"))) == Reading(name="a", raw=b"\xff")
    with pytest.raises(PayloadError, match=r"Other cannot be written as plant\.Reading: it is a plant\.Other"):
        codec.encode(Other(text="a"))
    with pytest.raises(PayloadError, match="no_such"):
        codec.encode({"no_such": 1})


def test_protobuf_with_a_schema() -> None:
    class Measured(BaseModel):
        name: str
        value: float
        raw: bytes
        at: datetime
        battery: int | None = None

    read = reader(protobuf(Reading), Measured)
    assert read(Message("t", _reading().SerializeToString()), Limits()) == Measured(
        name="m", value=2.5, raw=b"\xff", at=AT, battery=0
    )
    with pytest.raises(SchemaError, match="at: missing, expected this field"):
        read(Message("t", Reading(name="a").SerializeToString()), Limits())
    with pytest.raises(PayloadError, match=r"a google\.protobuf\.Timestamp cannot be read"):
        read(Message("t", Reading(at={"seconds": 2**62}).SerializeToString()), Limits())
