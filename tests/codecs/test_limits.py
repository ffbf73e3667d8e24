"""Bombs: what is small on the wire and would be large, deep or endless here."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from typing import Any, Unpack

import cbor2
import msgpack
import pytest
import zstandard

from core.codecs import CodecLike, Limits, compressed, protobuf
from core.codecs.payload import reader
from core.errors import PayloadError
from core.mqtt.message import Message, Properties
from tests.support.protobuf_messages import Node, Reading

Pack = Callable[[bytes], bytes]
LIMITS = Limits(bytes=1_000_000, depth=10)


def read(
    codec: CodecLike, body: bytes, limits: Limits = LIMITS, schema: Any = None, **properties: Unpack[Properties]
) -> Any:
    return reader(codec, schema)(Message("t", body, properties=properties or None), limits)


def _frames(body: bytes) -> bytes:
    """Compress without the size in the header."""
    compressing = zstandard.ZstdCompressor().compressobj()
    return compressing.compress(body) + compressing.flush()


def test_a_large_body_is_refused_by_its_size() -> None:
    assert read("raw", bytes(1_000_000)) == bytes(1_000_000)
    for codec in ("raw", "text", "json", "cbor+gzip", "json+zstd"):
        with pytest.raises(PayloadError, match=r"1,000,001 bytes\. At most 1,000,000 are accepted .*MAX_PAYLOAD_BYTES"):
            read(codec, bytes(1_000_001))


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("zstd", zstandard.compress), ("zstd", _frames)])
def test_a_bomb_is_refused_at_the_limit(name: str, pack: Pack) -> None:
    bomb = pack(bytes(20_000_000))
    assert len(bomb) < 25_000
    began = time.process_time()
    told: Properties = {"user_property": [("content-encoding", name)]}
    without: Properties = {}
    for codec, properties in ((f"raw+{name}", without), ("raw", told)):
        with pytest.raises(PayloadError, match=r"more than 1,000,000 bytes when it is decompressed .*MAX_PAYLOAD_BYTES"):
            read(codec, bomb, **properties)
        assert read(codec, pack(bytes(1_000_000)), **properties) == bytes(1_000_000)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("zstd", zstandard.compress), ("zstd", _frames)])
def test_what_is_cut_off_or_goes_on_is_refused(name: str, pack: Pack) -> None:
    whole = pack(b"[1, 2, 3]")
    for length in range(len(whole)):
        with pytest.raises(PayloadError, match=f"the body is not {name}: "):
            read(f"json+{name}", whole[:length])
    with pytest.raises(PayloadError, match=f"the body is not {name}: .*"):
        read(f"json+{name}", whole + b"x")


def test_a_window_of_a_gigabyte_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    compressing = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = compressing.compress(b"[1]") + compressing.flush()
    with pytest.raises(PayloadError, match=r"the body is not zstd: .*memory"):
        read("json+zstd", body)


def _nested(depth: int) -> Any:
    value: Any = 1
    for number in range(depth):
        value = {"a": value} if number % 2 else [value]
    return value


def _node(depth: int) -> Any:
    node = Node(n=1)
    for _ in range(depth - 1):
        node = Node(node=node)
    return node


DEEP: dict[str, Callable[[int], bytes]] = {
    "json": lambda depth: b'{"a":[' * (depth // 2) + b"1" + b"]}" * (depth // 2),
    "msgpack": lambda depth: msgpack.packb(_nested(depth)),
    "cbor": lambda depth: cbor2.dumps(_nested(depth)),
}


@pytest.mark.parametrize("codec", DEEP)
@pytest.mark.parametrize("schema", [None, dict])
def test_nesting_is_bounded(codec: str, schema: type | None) -> None:
    assert read(codec, DEEP[codec](10), schema=schema) == _nested(10)
    for depth in (12, 100, 1_000, 50_000):
        if codec == "cbor" and depth > 500:
            body = b"\x81" * depth + b"\x01"
        elif codec == "msgpack" and depth > 500:
            body = b"\x91" * depth + b"\x01"
        else:
            body = DEEP[codec](depth)
        with pytest.raises(PayloadError, match="nested too deeply"):
            read(codec, body, schema=schema)


def test_messages_within_messages_are_bounded() -> None:
    assert read(protobuf(Node), _node(10).SerializeToString()) == _node(10)
    for depth in (11, 60, 99):
        with pytest.raises(PayloadError, match="nested too deeply"):
            read(protobuf(Node), _node(depth).SerializeToString())
    # The class says that it cannot be deeper.
    assert read(compressed(protobuf(Reading), "gzip"), gzip.compress(Reading(name="a" * 1000).SerializeToString()))


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "%s"}' % (b"[" * 1000),
        b'["\\"", "%s", "\\\\", "]"]' % (b"{" * 1000),
        b"[" + b",".join([b'{"a": [1]}'] * 1000) + b"]",
        b'[["", "[", "", "]"], "\\\\\\"[[[[[[[[[[[["]',
    ],
)
def test_brackets_in_texts_and_beside_each_other_are_no_nesting(body: bytes) -> None:
    assert read("json", body)


def test_brackets_in_texts_do_not_hide_nesting() -> None:
    for text in (b'"]]]]]]]]]]]]]]]]]]]]"', b'"\\"]]]]]]]]]]]]"', b'"\\\\", "}}}}}}}}}}}}"', b'"", "]]]]]]]]]]]]"'):
        with pytest.raises(PayloadError, match="nested too deeply"):
            read("json", b"[" * 5 + text + b"," + b"[" * 6 + b"]" * 11)


def test_what_users_codecs_give_is_measured_too() -> None:
    class Own:
        def decode(self, body: bytes) -> Any:
            value: list[Any] = [1]
            for _ in range(body[0]):
                # Each in two places: unfolded it would be without end.
                value = [value, value]
            return value

        def encode(self, value: Any) -> bytes:
            return b""

    assert read(Own(), bytes([9]))
    for depth in (10, 200):
        with pytest.raises(PayloadError, match="nested too deeply"):
            read(Own(), bytes([depth]))


def test_lists_that_say_they_are_long_take_no_room() -> None:
    body = b"\xdd\x00\x0f\xff\xff" * 1_000 + bytes(900_000)
    began = time.process_time()
    with pytest.raises(PayloadError, match="not MessagePack: it is cut off, or a length in it is wrong"):
        read("msgpack", body)
    for head in (b"\x9b\x00\x00\x00\x7f\xff\xff\xff\xff", b"\xbb\x7f" + b"\xff" * 7, b"\x5b\x7f" + b"\xff" * 7):
        with pytest.raises(PayloadError, match="not CBOR: it is cut off, or a length in it is wrong"):
            read("cbor", head)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("c4821a3b9ac9ff01", "a decimal fraction"),
        ("c5821a3b9ac9ff01", "binary fractions"),
        ("d81c82d81d0001", "shared values"),
        ("d82363612b2b", "regular expressions"),
        ("d824617a", "MIME messages"),
        ("c25a00004000" + "ff" * 0x4000, "4,000 digits"),
    ],
)
def test_values_of_cbor_that_unfold_are_not_taken(body: str, said: str) -> None:
    with pytest.raises(PayloadError, match=said):
        read("cbor", bytes.fromhex(body))
