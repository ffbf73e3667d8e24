"""What devices send when they are broken, or somebody else: bodies that no route can take, and good ones beside them."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime

import cbor2
import msgpack
import zstandard

from core.mqtt.message import Properties
from tests.support.protobuf_messages import Node, Other, Reading

GOOD = {"name": "m", "value": 21.5, "at": "2026-01-02T03:04:05Z"}
JSON_BODY = json.dumps(GOOD).encode()
CBOR_BODY = cbor2.dumps(GOOD)
MSGPACK_BODY = msgpack.packb(GOOD)
PROTOBUF_BODY = Reading(name="m", value=21.5, at=datetime(2026, 1, 2, tzinfo=UTC)).SerializeToString()
BOMB = bytes(20_000_000)

WHOLE = {
    "json": JSON_BODY,
    "cbor": CBOR_BODY,
    "msgpack": MSGPACK_BODY,
    "protobuf": PROTOBUF_BODY,
    "gzip": gzip.compress(JSON_BODY),
    "zstd": zstandard.compress(CBOR_BODY),
    "auto": JSON_BODY,
    "text": b"21.5",
}
"""For each route a body that it takes."""

JSON = [
    b"temperature=21",
    b"<xml/>",
    b"{'name': 'm'}",
    b'{"name": "m",}',
    b'{"name": "m"} {"name": "m"}',
    b'\xef\xbb\xbf{"name": "m"',
    JSON_BODY.decode().encode("utf-16"),
    b'{"name": "\xff\xfe", "value": 1}',
    b'{"name": "\xed\xa0\x80", "value": 1}',
    b'{"name": "\\ud800", "value": 1}',
    b'{"name": "\\udc00\\ud800", "value": 1, "n": 12345678901234567890123}',
    b'{"name": "\\u12", "value": 1}',
    b'{"name": "a\nb", "value": 1}',
    b'{"name": "m", "value": NaN}',
    b'{"name": "m", "value": -Infinity}',
    b'{"name": "m", "value": 1e999}',
    b'{"name": "m", "value": 1' + b"0" * 400 + b"}",
    b'{"name": "m", "value": ' + b"9" * 100_000 + b"}",
    b'{"name": "m", "value": 0x10}',
    b'{"name": "m", "value": 01}',
    b'{"name": "m", "value": "warm"}',
    b'{"name": "m", "value": null}',
    b'{"name": "m", "value": [[]]}',
    b'{"name": ' + b"[" * 101 + b"]" * 101 + b"}",
    b"[" * 100_000 + b"]" * 100_000,
    b"[" * 100_000,
    b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    b'["]]]]",' * 200 + b"1" + b"]" * 200,
    b"null",
    b"[]",
    b'"text"',
    b"12",
    b"\0" * 100,
    b"x" * 1_100_000,
    b"[" + b"{}," * 100_000 + b"{}]",
]
CBOR = [
    JSON_BODY,
    MSGPACK_BODY,
    CBOR_BODY + b"\0",
    b"\x81" * 101 + b"\0",
    b"\x81" * 100_000 + b"\0",
    b"\xc1" * 100_000 + b"\0",
    b"\x9f" * 1_000,
    b"\x9b\x7f" + b"\xff" * 7,
    b"\xbb\x7f" + b"\xff" * 7,
    b"\x5b\x7f" + b"\xff" * 7,
    b"\x7a\xff\xff\xff\xffabc",
    b"\xff",
    b"\x81\xff",
    b"\x1c",
    b"\xf8\x10",
    b"\x61\xff",
    b"\x63\xed\xa0\x80",
    b"\xc0\x64soon",
    b"\xc1\xfb\x7f\xf0" + bytes(6),
    bytes.fromhex("a1657661c41b"),
    bytes.fromhex("c4821a3b9ac9ff01"),
    bytes.fromhex("a16576616c7565c4821a3b9ac9ff01"),
    bytes.fromhex("c5821a3b9ac9ff01"),
    bytes.fromhex("d81e820100"),
    bytes.fromhex("d81c81d81d00"),
    bytes.fromhex("d81d05"),
    bytes.fromhex("d8237828") + b"(" * 40,
    bytes.fromhex("d8256401020304"),
    b"\xc2\x59\x40\x00" + b"\xff" * 0x4000,
    cbor2.dumps({"name": "m", "value": float("nan"), "at": float("inf")}),
    cbor2.dumps([GOOD]),
    cbor2.dumps({1: 2}),
    cbor2.dumps("m"),
]
MSGPACK = [
    JSON_BODY,
    CBOR_BODY,
    MSGPACK_BODY + b"\0",
    b"\x91" * 101 + b"\0",
    b"\x91" * 100_000 + b"\0",
    b"\xdd\x00\x0f\xff\xff" * 2_000,
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xffabc",
    b"\xc1",
    b"\xa1\xff",
    b"\xa3\xed\xa0\x80",
    b"\x81\x90\x01",
    b"\xc7\x0c\xff" + b"\xff" * 12,
    b"\xd4\xff\x00",
    b"\xc7\x05\x7fabcde",
    msgpack.packb({"name": "m", "value": 2**64 - 1, "at": 2**64 - 1}),
    msgpack.packb([GOOD]),
    msgpack.packb({1: 2}),
    msgpack.packb("m"),
]
PROTOBUF = [
    JSON_BODY,
    CBOR_BODY,
    Other(text="m", number=5).SerializeToString(),
    Node(node=Node(node=Node(n=1)), n=2).SerializeToString(),
    b"\x0a\xff\xff\xff\xff\x0f",
    b"\x0a\x01\xff",
    b"\x0b" * 200,
    b"\x0f",
    b"\x08\x01\x10\x02",
    b"\xff" * 20,
    b"\x00",
    Reading(at={"seconds": 2**62}).SerializeToString(),
]
GZIP = [
    JSON_BODY,
    gzip.compress(BOMB),
    gzip.compress(gzip.compress(BOMB)),
    gzip.compress(JSON_BODY) * 2,
    gzip.compress(JSON_BODY) + b"x",
    gzip.compress(JSON_BODY)[:-8] + bytes(8),
    gzip.compress(b"[" * 200_000 + b"]" * 200_000),
    gzip.compress(b""),
    b"\x1f\x8b\x08" + bytes(40),
    zstandard.compress(JSON_BODY),
]
ZSTD = [
    CBOR_BODY,
    zstandard.compress(BOMB),
    zstandard.compress(zstandard.compress(BOMB)),
    zstandard.compress(CBOR_BODY) + b"x",
    zstandard.compress(b"\x81" * 100_000),
    b"\x28\xb5\x2f\xfd" + b"\xff" * 12,
    b"\x28\xb5\x2f\xfd\x04\x88" + bytes(10),
    gzip.compress(CBOR_BODY),
]
AUTO: list[tuple[bytes, Properties]] = [
    (JSON_BODY, {"content_type": "application/xml"}),
    (JSON_BODY, {"content_type": "application/cbor"}),
    (JSON_BODY, {"content_type": "application/msgpack"}),
    (JSON_BODY, {"content_type": "application/x-protobuf"}),
    (JSON_BODY, {"content_type": "\u202e" * 30}),
    (JSON_BODY, {"content_type": "x" * 20_000}),
    (JSON_BODY, {"content_type": "application/octet-stream"}),
    (CBOR_BODY, {"content_type": "application/json"}),
    (CBOR_BODY, {"content_type": "text/plain"}),
    (MSGPACK_BODY, {"content_type": "application/senml+cbor"}),
    (JSON_BODY, {"user_property": [("content-encoding", "br")]}),
    (JSON_BODY, {"user_property": [("content-encoding", "gzip")]}),
    (JSON_BODY, {"user_property": [("content-encoding", "zstd")]}),
    (gzip.compress(JSON_BODY), {"user_property": [("content-encoding", "gzip")] * 2}),
    (gzip.compress(JSON_BODY), {}),
    (gzip.compress(BOMB), {"user_property": [("content-encoding", "gzip")]}),
    (zstandard.compress(BOMB), {"user_property": [("content-encoding", "zstd")], "content_type": "application/cbor"}),
]
TEXT = [b"\xff", b"21.5\xfe", b"warm", b"", b"\xed\xa0\x80", "21,5".encode("utf-16"), b"nan-ish", b"1" * 5_000_000]


def corpus() -> list[tuple[str, bytes, Properties]]:
    """Give routes, bodies and properties; none is to be taken."""
    found: list[tuple[str, bytes, Properties]] = [
        (route, body, {})
        for route, bodies in {
            "json": JSON,
            "cbor": CBOR,
            "msgpack": MSGPACK,
            "protobuf": PROTOBUF,
            "gzip": GZIP,
            "zstd": ZSTD,
            "text": TEXT,
        }.items()
        for body in bodies
    ]
    found += [("auto", body, properties) for body, properties in AUTO]
    for route in ("json", "cbor", "msgpack", "protobuf", "gzip", "zstd"):
        whole = WHOLE[route]
        found += [(route, whole[:length], {}) for length in range(0, len(whole), 4)]
    return found
