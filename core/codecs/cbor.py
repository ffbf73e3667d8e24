"""CBOR (RFC 8949)."""

from __future__ import annotations

from datetime import UTC
from decimal import Decimal
from io import BytesIO
from typing import Any, NoReturn

import cbor2

from core.codecs.codec import begin
from core.codecs.limits import DEFAULT, too_deep
from core.codecs.plain import plain
from core.errors import PayloadError, one_line

MAX_DIGITS = 4_000
_MAX_BYTES = 1_660
"""The bytes of an integer of about MAX_DIGITS digits."""


def _big(sign: int) -> Any:
    def of(value: Any, _immutable: bool) -> int:  # noqa: FBT001 - the library's call
        if not isinstance(value, bytes) or len(value) > _MAX_BYTES:
            raise PayloadError(f"a large integer (tag 2 or 3) is not bytes, or has more than {MAX_DIGITS:,} digits")
        number = int.from_bytes(value, "big")
        return number if sign > 0 else -1 - number

    return of


def _fraction(value: Any, _immutable: bool) -> Decimal:  # noqa: FBT001 - the library's call
    exponent, mantissa = value
    if abs(exponent) > MAX_DIGITS or mantissa.bit_length() > 8 * _MAX_BYTES:
        # An int made of 1E+999999999 would fill the memory.
        raise PayloadError(f"a decimal fraction (tag 4) has more than {MAX_DIGITS:,} digits")
    return Decimal((int(mantissa < 0), tuple(int(digit) for digit in str(abs(mantissa))), exponent))


def _refusing(tag: int, what: str) -> Any:
    def refuse(_value: Any, _immutable: bool) -> NoReturn:  # noqa: FBT001 - the library's call
        raise PayloadError(f"{what} (tag {tag}) are not accepted")

    return refuse


# Values that refer to each other can be made to unfold without end. The others are programs of a kind.
_TAGS = {
    2: _big(1),
    3: _big(-1),
    4: _fraction,
    **{
        tag: _refusing(tag, what)
        for tag, what in ((5, "binary fractions"), (28, "shared values"), (29, "shared values"), (35, "regular expressions"))
    },
    36: _refusing(36, "MIME messages"),
}
# Both options exist since version 6 of cbor2. An older one fails here, and not at the first message.
cbor2.loads(b"\xf6", max_depth=1, semantic_decoders=_TAGS)


class Cbor:
    """CBOR (RFC 8949).

    Tagged datetimes, UUIDs, decimals and large integers are decoded as such, and unknown tags as CBORTag. Of repeated keys
    the last one counts. What cbor2 can write is encoded, and what ``core.codecs.plain`` makes plain. A naive datetime is
    taken for one in UTC.
    """

    content_type = "application/cbor"

    def decode(self, body: bytes) -> Any:
        """Return the value that ``body`` holds. Raise PayloadError."""
        return self.decode_within(body, DEFAULT.depth)

    def decode_within(self, body: bytes, depth: int) -> Any:
        """Return the value, whose lists and maps are nested at most ``depth`` levels deep. Raise PayloadError."""
        if not body:
            raise PayloadError("the body is empty. CBOR is expected")
        try:
            decoder = cbor2.CBORDecoder(BytesIO(body), max_depth=depth, semantic_decoders=_TAGS)
            value = decoder.decode()
        except Exception as error:  # noqa: BLE001 - a tag's content may raise anything
            if "nesting depth" in str(error):
                raise too_deep(depth) from None
            raise PayloadError(f"the body is not CBOR: {_why(error)}. It begins {begin(body)}") from None
        try:
            decoder.read(1)
        except cbor2.CBORDecodeEOF:
            return value
        raise PayloadError(f"the body is not CBOR: something follows after its end. It begins {begin(body)}")

    def encode(self, value: Any) -> bytes:
        """Return ``value`` as CBOR. Raise PayloadError for what CBOR cannot hold."""
        try:
            return cbor2.dumps(value, default=_default, timezone=UTC)
        except Exception as error:  # noqa: BLE001 - see above, and a user's to_dict() may raise anything
            cause = error.__cause__ or error
            raise PayloadError(f"{type(value).__name__} cannot be written as CBOR: {one_line(cause, name=False)}") from None


def _default(encoder: cbor2.CBOREncoder, value: Any) -> None:
    encoder.encode(plain(value))


def _why(error: Exception) -> str:
    if isinstance(error, cbor2.CBORDecodeEOF):
        return "it is cut off, or a length in it is wrong"
    cause = error.__cause__
    if isinstance(cause, PayloadError):
        return str(cause)
    why = one_line(error, name=False)
    return why if cause is None else f"{why} ({one_line(cause, name=False)[:100]})"
