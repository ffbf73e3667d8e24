"""Codecs: from the bytes of a message to the payload that its handler gets, and back."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from decimal import Decimal
from enum import Enum
from typing import Any, NoReturn, Protocol
from uuid import UUID

import orjson

from core.errors import PayloadError

# orjson turns integers beyond 64 bits into floats: a body with this many digits in a row is read by the standard library.
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
# Of 19 digits in a row every sixth byte shows three: looking at those first costs a quarter.
_EVERY_SIXTH = re.compile(rb"[0-9]{3}")
MOST_DIGITS = 4_000


class Codec(Protocol):
    """Two methods; both raise PayloadError with a sentence on what is wrong where."""

    def decode(self, body: bytes) -> Any:
        """Give the payload that ``body`` holds."""

    def encode(self, value: Any) -> bytes:
        """Give the body that holds ``value``."""


class Json:
    """JSON (RFC 8259) in UTF-8. NaN and Infinity are refused, integers are kept exactly, of repeated keys the last counts.

    Encodes what JSON can hold, datetimes in ISO 8601, UUIDs, Decimals as strings, dataclasses, pydantic models and
    whatever has a ``to_dict()``.
    """

    content_type = "application/json"

    def decode(self, body: bytes) -> Any:
        """Give the value of a JSON text."""
        if not body:
            raise PayloadError("the body is empty, expected JSON")
        try:
            if _EVERY_SIXTH.search(body[::6]) is not None and _LONG_NUMBER.search(body) is not None:
                return json.loads(body.decode(), parse_constant=_refuse_constant, parse_int=_integer, parse_float=_number)
            return orjson.loads(body)
        except UnicodeDecodeError as error:
            raise PayloadError(f"the body is not JSON: not UTF-8 at byte {error.start} in {begin(body)}") from None
        except RecursionError:
            raise PayloadError(f"the body is not acceptable JSON: nested too deeply, it begins {begin(body)}") from None
        except ValueError as error:
            # orjson's and the standard library's messages both say what is wrong and where, in one line.
            raise PayloadError(f"the body is not JSON: {error}, it begins {begin(body)}") from None

    def encode(self, value: Any) -> bytes:
        """Give ``value`` as a JSON text."""
        try:
            return orjson.dumps(value, default=_default, option=orjson.OPT_NON_STR_KEYS)
        except TypeError:
            # orjson refuses integers beyond 64 bits, the standard library does not.
            try:
                return json.dumps(value, default=_default_text, allow_nan=False, separators=(",", ":")).encode()
            except (TypeError, ValueError, RecursionError) as error:
                raise PayloadError(f"{type(value).__name__} cannot be written as JSON: {error}") from None


class Text:
    """Text in UTF-8."""

    def decode(self, body: bytes) -> str:
        """Give the text."""
        try:
            return body.decode()
        except UnicodeDecodeError as error:
            raise PayloadError(f"the body is not UTF-8 at byte {error.start}, it begins {begin(body)}") from None

    def encode(self, value: Any) -> bytes:
        """Give ``value``, a str, in UTF-8."""
        if not isinstance(value, str):
            raise PayloadError(f"the codec text writes str, not {type(value).__name__}")
        return value.encode()


class Raw:
    """The bytes as they are."""

    def decode(self, body: bytes) -> bytes:
        """Give ``body``."""
        return body

    def encode(self, value: Any) -> bytes:
        """Give ``value``, which is bytes."""
        if not isinstance(value, bytes | bytearray | memoryview):
            raise PayloadError(f"the codec raw writes bytes, not {type(value).__name__}")
        return bytes(value)


JSON = Json()
CODECS: dict[str, Codec] = {"json": JSON, "text": Text(), "raw": Raw()}


def encode_any(value: Any) -> bytes:
    """Give the body for a value that is published without a codec: bytes as they are, str in UTF-8, the rest as JSON."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    return JSON.encode(value)


def begin(body: bytes) -> str:
    """Give the beginning of ``body`` for a message to a person: one line, at most 60 characters."""
    text = ascii(body[:40].decode("utf-8", "backslashreplace"))
    return text[:57] + "..." if len(text) > 60 or len(body) > 40 else text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits, at most {MOST_DIGITS:,} are allowed")
    return int(digits)


def _number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:20]}... is too large")
    return number


def _default(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    raise TypeError(f"there is no JSON for {type(value).__name__}")


def _default_text(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    return _default(value)
