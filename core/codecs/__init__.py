"""Codecs: they turn the bytes of a message into the payload that its handler gets, and back."""

from __future__ import annotations

from typing import Any

from core.codecs.codec import Codec, begin
from core.codecs.json import JSON, Json
from core.codecs.limits import Limits
from core.codecs.protocol_buffers import protobuf
from core.codecs.registry import Auto, CodecLike, Compressed, auto, codecs_by_name, compressed, register
from core.codecs.text import Raw, Text

__all__ = [
    "JSON",
    "Auto",
    "Codec",
    "CodecLike",
    "Compressed",
    "Json",
    "Limits",
    "Raw",
    "Text",
    "auto",
    "begin",
    "codecs_by_name",
    "compressed",
    "encode_any",
    "protobuf",
    "register",
]


def encode_any(value: Any) -> bytes:
    """Return the body for a value that is published without a codec.

    bytes go as they are, str in UTF-8, and everything else as JSON. Raise PayloadError for a value that JSON cannot hold.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    return JSON.encode(value)
