"""JSON (RFC 8259)."""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any, NoReturn

import orjson

from core.codecs.codec import begin
from core.codecs.limits import too_deep
from core.codecs.plain import plain
from core.errors import PayloadError

# orjson turns integers beyond 64 bits into floats. The standard library reads a body with this many digits in a row.
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
# Every sixth byte shows three of 19 digits in a row. Looking at those bytes first costs a quarter.
_EVERY_SIXTH = re.compile(rb"[0-9]{3}")
MAX_DIGITS = 4_000
# To look for digits, each of them becomes 0. With an exponent of two digits it takes 209 others to overflow a float.
_FLAT = bytes.maketrans(b"123456789E", b"000000000e")
_MANY_DIGITS = b"0" * 200
# To count brackets, one that opens becomes a step of 1, and one that closes a step of -1, as a signed byte.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b'[]{}"'))


class Json:
    """JSON (RFC 8259) in UTF-8.

    NaN and Infinity are refused. Integers are kept exactly. Of repeated keys the last one counts. What JSON can hold is
    encoded, and so are datetimes (in ISO 8601), UUIDs, Decimals (as strings), dataclasses, pydantic models and whatever has
    a ``to_dict()``.
    """

    content_type = "application/json"

    def decode(self, body: bytes) -> Any:
        """Return the value of a JSON text. Raise PayloadError."""
        if not body:
            raise PayloadError("the body is empty. JSON is expected")
        try:
            if _EVERY_SIXTH.search(body[::6]) is not None and _LONG_NUMBER.search(body) is not None:
                return _exactly(body.decode())
            return _read(body)
        except UnicodeEncodeError:
            raise PayloadError(f"the body is not JSON: it has half a surrogate pair. It begins {begin(body)}") from None
        except UnicodeDecodeError as error:
            raise PayloadError(f"the body is not JSON: it is not UTF-8 at byte {error.start} in {begin(body)}") from None
        except RecursionError:
            raise PayloadError(
                f"the body is not acceptable JSON: it is nested too deeply. It begins {begin(body)}"
            ) from None
        except ValueError as error:
            # orjson's and the standard library's messages both say what is wrong and where, in one line.
            raise PayloadError(f"the body is not JSON: {error}. It begins {begin(body)}") from None

    def decode_within(self, body: bytes, depth: int) -> Any:
        """Return the value of a JSON text whose lists and objects are nested at most ``depth`` levels deep.

        Raise PayloadError.
        """
        check_nesting(body, depth)
        return self.decode(body)

    def encode(self, value: Any) -> bytes:
        """Return ``value`` as a JSON text. Raise PayloadError for what JSON cannot hold."""
        try:
            return orjson.dumps(value, default=_default, option=orjson.OPT_NON_STR_KEYS)
        except TypeError:
            # orjson refuses integers beyond 64 bits, the standard library does not.
            try:
                return json.dumps(value, default=_default, allow_nan=False, separators=(",", ":")).encode()
            except (TypeError, ValueError, RecursionError) as error:
                raise PayloadError(f"{type(value).__name__} cannot be written as JSON: {error}") from None


JSON = Json()


def check_nesting(body: bytes, depth: int) -> None:
    """Raise PayloadError where lists and objects of a JSON text are nested more than ``depth`` levels deep.

    For ordinary messages the size or the number of brackets says enough. For others the brackets outside of strings are
    added up.
    """
    # A level takes two bytes at least.
    if len(body) <= 2 * depth or body.count(b"[") + body.count(b"{") <= depth:
        return
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    # What stands between the first two quotes is a string, and so on. Most strings have no brackets in them.
    steps = body.translate(_STEPS, _NO_BRACKETS).replace(b'""', b"")
    if b'"' in steps:
        steps = b"".join(steps.split(b'"')[::2])
    if max(accumulate(memoryview(steps).cast("b")), default=0) > depth:
        raise too_deep(depth)


def may_overflow(body: bytes) -> bool:
    """Return whether a JSON text may hold NaN, Infinity or a number too large for a float, which some decoders let pass."""
    if b"NaN" in body or b"Infinity" in body:
        return True
    flat = body.translate(_FLAT, b"+")
    return b"e000" in flat or _MANY_DIGITS in flat


def has_many_digits(body: bytes) -> bool:
    """Return whether a JSON text has so many digits in a row that a float might not hold them."""
    return _MANY_DIGITS in body.translate(_FLAT)


def _read(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except ValueError as error:
        if "UTF-8" in str(error) and not body.startswith(b"\xef\xbb\xbf"):
            # orjson says of all such bodies that they have surrogates.
            body.decode()
        raise


def _exactly(text: str) -> Any:
    """Return the value of ``text``, with integers of any size. Raise ValueError."""
    value = json.loads(text, parse_constant=_refuse_constant, parse_int=_integer, parse_float=_number)
    if "\\u" in text:
        # orjson refuses half a surrogate pair, and the standard library does not.
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits):,} digits. At most {MAX_DIGITS:,} are allowed")
    return int(digits)


def _number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:20]}... is too large")
    return number


def _default(value: Any) -> Any:
    if hasattr(value, "model_dump") and not hasattr(value, "to_dict"):
        return value.model_dump(mode="json")
    return plain(value)
