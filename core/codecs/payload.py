"""From a message to the payload that its handler gets, by size, compression, codec, nesting and schema, in this order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from core.codecs.codec import Codec
from core.codecs.compression import COMPRESSIONS, of_properties
from core.codecs.json import Json, check_nesting
from core.codecs.limits import Limits, check_depth, check_size
from core.codecs.protocol_buffers import Protobuf, to_dict
from core.codecs.registry import Auto, CodecLike, Compressed, by_content_type, codecs_by_name, resolve
from core.codecs.schema import Schema

if TYPE_CHECKING:
    from core.mqtt.message import Message

Read = Callable[["Message", Limits], Any]
"""Returns the payload of a message. Raises PayloadError, and SchemaError for a payload that the schema does not take."""
_Take = Callable[[bytes, int], Any]
"""Returns the payload that a decompressed body holds, nested at most as many levels deep as the second argument says."""


def reader(codec: CodecLike, schema: Any = None) -> Read:
    """Return what reads the payloads of a route. ``schema`` is None for none. Raise RouteError."""
    checked = None if schema is None else Schema(schema)
    found = resolve(codec)
    if isinstance(found, Auto):
        return _by_content_type(found, checked)
    if isinstance(found, Compressed):
        return _compressed(found, checked)
    return _plain(_take(found, checked))


def writer(codec: CodecLike) -> tuple[Callable[[Any], bytes], str | None]:
    """Return what makes the body of a reply by ``codec``, and the reply's content type, or None where it has none.

    Raise RouteError.
    """
    found = resolve(codec)
    if isinstance(found, Auto):
        found = found.default
    if not isinstance(found, Compressed):
        return found.encode, getattr(found, "content_type", None)
    inner, compress = found.codec, COMPRESSIONS[found.compression].compress
    return lambda value: compress(inner.encode(value)), getattr(inner, "content_type", None)


def _plain(take: _Take) -> Read:
    def read(message: Message, limits: Limits) -> Any:
        body = message.body
        if len(body) > limits.bytes:
            check_size(len(body), limits)
        properties = message.properties
        if properties is not None and "user_property" in properties:
            body = _unpacked(body, properties["user_property"], limits)
        return take(body, limits.depth)

    return read


def _unpacked(body: bytes, user_property: list[tuple[str, str]], limits: Limits) -> bytes:
    compression = of_properties(user_property)
    return body if compression is None else compression.decompress(body, limits)


def _compressed(codec: Compressed, schema: Schema | None) -> Read:
    take, decompress = _take(codec.codec, schema), COMPRESSIONS[codec.compression].decompress

    def read(message: Message, limits: Limits) -> Any:
        check_size(len(message.body), limits)
        return take(decompress(message.body, limits), limits.depth)

    return read


def _by_content_type(codec: Auto, schema: Schema | None) -> Read:
    default = codec.default
    otherwise = _compressed(default, schema) if isinstance(default, Compressed) else _plain(_take(default, schema))
    known = default.codec if isinstance(default, Compressed) else default
    codecs = codecs_by_name()
    readers: dict[int, Read] = {}

    def read(message: Message, limits: Limits) -> Any:
        content_type = (message.properties or {}).get("content_type")
        if not content_type:
            return otherwise(message, limits)
        found = by_content_type(content_type, known, codecs)
        # Kept by the codec and not by the content type, of which there is no end.
        take = readers.get(id(found))
        if take is None:
            take = readers[id(found)] = _plain(_take(found, schema))
        return take(message, limits)

    return read


def _take(codec: Codec, schema: Schema | None) -> _Take:
    decode = _decoder(codec)
    if schema is None:
        return decode
    if isinstance(codec, Json):
        read_json = schema.read_json

        def take_json(body: bytes, depth: int) -> Any:
            check_nesting(body, depth)
            return read_json(body)

        return take_json
    check = schema.check
    if isinstance(codec, Protobuf):
        return lambda body, depth: check(to_dict(decode(body, depth)), len(body))
    return lambda body, depth: check(decode(body, depth), len(body))


def _decoder(codec: Codec) -> _Take:
    within: _Take | None = getattr(codec, "decode_within", None)
    if within is not None:
        return within

    def decode(body: bytes, depth: int) -> Any:
        value = codec.decode(body)
        check_depth(value, depth)
        return value

    return decode
