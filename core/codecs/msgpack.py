"""MessagePack."""

from __future__ import annotations

from typing import Any

import msgpack

from core.codecs.codec import begin
from core.codecs.limits import DEFAULT, check_depth
from core.codecs.plain import plain
from core.errors import PayloadError, one_line

# The bytes that open a list or a map. They may also stand in text and numbers, so that their number is an upper bound.
_OPENING = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
_OTHERS = bytes(set(range(256)) - set(_OPENING))
_ARRAY_32 = b"\xdd"
MAX_ROOM = 16_000_000
"""Items for which the library may make room at the most before it has seen them."""


class MessagePack:
    """MessagePack.

    Maps may have keys of any type. Timestamps (extension -1) are aware datetimes in UTC. What MessagePack can hold is
    encoded, and what ``core.codecs.plain`` makes plain. A naive datetime becomes text.
    """

    content_type = "application/msgpack"

    def decode(self, body: bytes) -> Any:
        """Return the value that ``body`` holds. Raise PayloadError."""
        return self.decode_within(body, DEFAULT.depth)

    def decode_within(self, body: bytes, depth: int) -> Any:
        """Return the value, whose lists and maps are nested at most ``depth`` levels deep. Raise PayloadError."""
        if not body:
            raise PayloadError("the body is empty. MessagePack is expected")
        try:
            if body.count(_ARRAY_32) * len(body) > MAX_ROOM:
                # The library makes room for as many items as a list says it has, before it has seen one.
                unpacker = msgpack.Unpacker(max_buffer_size=len(body))
                unpacker.feed(body)
                unpacker.skip()
            value = msgpack.unpackb(body, strict_map_key=False, timestamp=3)
        except Exception as error:  # noqa: BLE001 - it raises errors of many types, some without a message
            raise PayloadError(f"the body is not MessagePack: {_why(error)}. It begins {begin(body)}") from None
        if len(body.translate(None, _OTHERS)) > depth:
            check_depth(value, depth)
        return value

    def encode(self, value: Any) -> bytes:
        """Return ``value`` as MessagePack. Raise PayloadError for what MessagePack cannot hold."""
        try:
            return bytes(msgpack.packb(value, default=plain, datetime=True))
        except Exception as error:  # noqa: BLE001 - see above, and a user's to_dict() may raise anything
            raise PayloadError(
                f"{type(value).__name__} cannot be written as MessagePack: {one_line(error, name=False)}"
            ) from None


def _why(error: Exception) -> str:
    said = str(error)
    if isinstance(error, msgpack.OutOfData) or "incomplete" in said or "exceeds max_" in said:
        return "it is cut off, or a length in it is wrong"
    if isinstance(error, msgpack.ExtraData):
        return "something follows after its end"
    if isinstance(error, msgpack.StackError):
        return "it is nested too deeply"
    if isinstance(error, msgpack.FormatError):
        return "it has a byte that MessagePack does not know"
    if isinstance(error, TypeError):
        return "a list or a map stands as a key in it"
    return one_line(error, name=False)
