"""From bytes to payloads and back."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from core.codecs import JSON, codecs_by_name, encode_any
from core.errors import PayloadError

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_json_comes_back_as_it_went(value: Any) -> None:
    assert JSON.decode(JSON.encode(value)) == value


@given(st.binary())
def test_any_bytes_decode_or_are_refused_in_one_line(body: bytes) -> None:
    for codec in codecs_by_name().values():
        try:
            codec.decode(body)
        except PayloadError as error:
            assert "\n" not in str(error)
            assert len(str(error)) < 300


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is empty"),
        (b"no json", "not JSON"),
        (b'{"a":1', "not JSON"),
        (b'{"a":1}x', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'"\xff"', "not JSON"),
        (b'{"a":NaN}', "not JSON"),
        (b'{"a":Infinity}', "not JSON"),
        (b'{"a":12345678901234567890123,"b":NaN}', "NaN is not a JSON number"),
        (b'{"a":12345678901234567890123,"b":-Infinity}', "Infinity is not a JSON number"),
        (b"9" * 10_000, "10,000 digits"),
        (b"[" * 100_000 + b"]" * 100_000, "JSON"),
        (b"[" * 100_000 + b"1" * 30 + b"]" * 100_000, "nested too deeply"),
        (b'{"a":12345678901234567890123,"b":"\xff"}', "not UTF-8 at byte"),
        (b"1e999", "JSON"),
    ],
)
def test_what_is_no_json_is_refused_with_its_beginning(body: bytes, said: str) -> None:
    with pytest.raises(PayloadError, match=said) as raised:
        JSON.decode(body)
    assert len(str(raised.value)) < 300


def test_large_integers_are_kept_exactly() -> None:
    for number in (2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**60):
        assert JSON.decode(b"[%d]" % number) == [number]


class Reading(BaseModel):
    value: float


@dataclasses.dataclass
class Point:
    x: int


class Row:
    def to_dict(self) -> dict[str, int]:
        return {"id": 1}


def test_what_handlers_have_can_be_encoded() -> None:
    value = {
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "id": UUID(int=1),
        "price": Decimal("1.10"),
        "row": Row(),
        "point": Point(3),
        "reading": Reading(value=1.5),
        "pair": (1, 2),
        "large": 2**70,
    }
    assert JSON.decode(JSON.encode(value)) == {
        "at": "2026-01-02T00:00:00+00:00",
        "id": str(UUID(int=1)),
        "price": "1.10",
        "row": {"id": 1},
        "point": {"x": 3},
        "reading": {"value": 1.5},
        "pair": [1, 2],
        "large": 2**70,
    }
    with pytest.raises(PayloadError, match="object cannot be written as JSON"):
        JSON.encode(object())


def test_text_and_raw() -> None:
    assert codecs_by_name()["text"].decode("grün".encode()) == "grün"
    assert codecs_by_name()["text"].encode("grün") == "grün".encode()
    with pytest.raises(PayloadError, match="not UTF-8 at byte 1"):
        codecs_by_name()["text"].decode(b"a\xff")
    with pytest.raises(PayloadError, match="writes str, not int"):
        codecs_by_name()["text"].encode(1)
    assert codecs_by_name()["raw"].decode(b"\x00") == b"\x00"
    assert codecs_by_name()["raw"].encode(bytearray(b"x")) == b"x"
    with pytest.raises(PayloadError, match="writes bytes, not str"):
        codecs_by_name()["raw"].encode("x")


def test_without_a_codec_bytes_and_text_stay_and_the_rest_is_json() -> None:
    assert [encode_any(value) for value in (b"\xff", "ü", bytearray(b"x"), {"a": 1}, None)] == [
        b"\xff",
        "ü".encode(),
        b"x",
        b'{"a":1}',
        b"null",
    ]
