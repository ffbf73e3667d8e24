"""Codecs by name, by content type, compressed, and of the user's own."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Iterator
from typing import Any, Unpack, cast

import cbor2
import msgpack
import pytest
import zstandard

from core.codecs import Codec, CodecLike, Limits, auto, codecs_by_name, compressed, compression, protobuf, register
from core.codecs.payload import reader, writer
from core.errors import PayloadError, RouteError
from core.mqtt.message import Message, Properties
from core.router import Router
from tests.support.protobuf_messages import Other, Reading

LIMITS = Limits()


def read(
    codec: CodecLike, body: bytes, schema: Any = None, limits: Limits = LIMITS, **properties: Unpack[Properties]
) -> Any:
    return reader(codec, schema)(Message("t", body, properties=properties or None), limits)


class Csv:
    content_type = "text/csv"

    def decode(self, body: bytes) -> list[list[str]]:
        return [line.split(",") for line in body.decode().splitlines()]

    def encode(self, value: Any) -> bytes:
        return "\n".join(",".join(line) for line in value).encode()


@pytest.fixture
def csv() -> Iterator[str]:
    register("csv", Csv())
    yield "csv"
    del codecs_by_name()["csv"]


@pytest.mark.parametrize("codec", ["json", "msgpack", "cbor"])
@pytest.mark.parametrize("packing", ["", "+gzip", "+zstd"])
def test_what_is_written_is_read(codec: str, packing: str) -> None:
    value = {"a": [1, -2, 2.5, None, True, "grün"], "b": {"c": {}}}
    write, content_type = writer(codec + packing)
    assert read(codec + packing, write(value)) == value
    assert content_type == f"application/{codec}"


def test_codecs_of_the_users_own_have_a_name(csv: str) -> None:
    assert read("csv", b"a,b\n1,2") == [["a", "b"], ["1", "2"]]
    assert read("csv+gzip", writer("csv+gzip")[0]([["a", "b"]])) == [["a", "b"]]
    assert read("auto", b"a,b", content_type="Text/CSV; header=absent") == [["a", "b"]]
    assert read(Csv(), b"1", list[list[int]]) == [[1]]
    assert writer("csv")[1] == "text/csv"


@pytest.mark.parametrize(
    ("register_", "said"),
    [
        (lambda: register("json", Csv()), "the name is taken. There are json, text, raw"),
        (lambda: register("cbor", Csv()), "the name is taken"),
        (lambda: register("auto", Csv()), "the name is taken"),
        (lambda: register("csv+gzip", Csv()), "the name may have lower-case letters"),
        (lambda: register("other", cast("Codec", object())), "needs the methods decode(body) and encode(value)"),
        (lambda: reader("yaml"), "there is no codec 'yaml'. There are json, text, raw"),
        (lambda: reader("json+br"), "there is no compression 'br'. There are gzip, zstd"),
        (lambda: reader("auto+gzip"), "there is no codec 'auto'"),
        (lambda: reader("protobuf"), "from core.codecs import protobuf"),
        (lambda: reader(cast("Codec", 7)), "codec 7 is not a codec"),
        (lambda: protobuf(dict), "needs a message class that protoc generated"),
        (lambda: auto("auto"), "needs a codec as its default, and auto is none"),
    ],
)
def test_what_is_no_codec_is_refused(register_: Callable[[], object], said: str) -> None:
    with pytest.raises(RouteError) as raised:
        register_()
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("codec", "library", "command"),
    [
        ("cbor", "cbor2", "pip install 'cbor2>=6,<7'"),
        ("msgpack+gzip", "msgpack", "pip install 'msgpack>=1.1,<2'"),
        ("json+zstd", "zstandard", "pip install 'zstandard>=0.23,<1'"),
    ],
)
def test_a_route_whose_library_is_missing_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, codec: str, library: str, command: str
) -> None:
    _hide(monkeypatch, library)
    with pytest.raises(RouteError) as raised:
        Router().on("a", codec=codec)(test_codecs_of_the_users_own_have_a_name)
    assert f"needs the package {library}. It is not installed: {command}" in str(raised.value)
    assert "test_registry.py:" in str(raised.value)


def test_an_old_library_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cbor2, "loads", lambda body: None)
    monkeypatch.delitem(sys.modules, "core.codecs.cbor", raising=False)
    monkeypatch.delitem(codecs_by_name(), "cbor", raising=False)
    with pytest.raises(RouteError, match=r"codec 'cbor' needs a newer cbor2 .*pip install 'cbor2>=6,<7'"):
        reader("cbor")


def test_messages_that_need_a_missing_library_are_refused_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    _hide(monkeypatch, "cbor2")
    _hide(monkeypatch, "zstandard")
    with pytest.raises(PayloadError, match="pip install 'cbor2"):
        read("auto", b"\x01", content_type="application/cbor")
    with pytest.raises(PayloadError, match="pip install zstandard"):
        read("json", b"\x01", user_property=[("content-encoding", "zstd")])


def _hide(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    for name in ("cbor", "msgpack"):
        monkeypatch.delitem(sys.modules, f"core.codecs.{name}", raising=False)
        monkeypatch.delitem(codecs_by_name(), name, raising=False)
    compression._zstandard.cache_clear()


@pytest.mark.parametrize(
    ("content_type", "body", "value"),
    [
        (None, b"[1]", [1]),
        ("", b"[1]", [1]),
        ("application/json", b"[1]", [1]),
        ("Application/JSON; charset=utf-8", b"[1]", [1]),
        ("application/senml+json", b"[1]", [1]),
        ("application/cbor", cbor2.dumps([1]), [1]),
        ("application/senml+cbor", cbor2.dumps([1]), [1]),
        ("application/x-msgpack", msgpack.packb([1]), [1]),
        ("text/plain", b"21.5", "21.5"),
        ("application/octet-stream", b"\xff", b"\xff"),
    ],
)
def test_auto_goes_by_the_content_type(content_type: str | None, body: bytes, value: bytes | list[int] | str) -> None:
    properties: Properties = {} if content_type is None else {"content_type": content_type}
    assert read("auto", body, **properties) == value


def test_auto_knows_its_default() -> None:
    body = Reading(name="a").SerializeToString()
    codec = auto(protobuf(Reading))
    assert read(codec, body) == Reading(name="a")
    assert read(codec, body, content_type="application/protobuf").name == "a"
    assert read(codec, b'{"a":1}', content_type="application/json") == {"a": 1}
    assert writer(codec)[1] == "application/x-protobuf"
    packed = auto("cbor+gzip")
    assert read(packed, gzip.compress(cbor2.dumps(1))) == 1
    assert read(packed, b"1", content_type="application/json") == 1


def test_an_unknown_content_type_is_named() -> None:
    with pytest.raises(
        PayloadError, match=r"no codec for the content type 'application/xml'\. There are codecs for application/j"
    ):
        read("auto", b"<a/>", content_type="application/xml")
    with pytest.raises(PayloadError) as raised:
        read("auto", b"<a/>", content_type="x" * 60_000)
    assert len(str(raised.value)) <= 500


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("zstd", zstandard.compress), ("identity", bytes)])
def test_the_compression_is_that_of_the_user_property(name: str, pack: Callable[[bytes], bytes]) -> None:
    encoded = [("site", "a"), ("Content-Encoding", name)]
    assert read("json", pack(b"[1]"), user_property=encoded) == [1]
    assert read("auto", pack(b"a"), user_property=encoded, content_type="text/plain") == "a"


def test_a_codec_with_a_compression_needs_no_user_property() -> None:
    assert read("json+gzip", gzip.compress(b"1"), user_property=[("content-encoding", "gzip")]) == 1
    assert read(compressed(protobuf(Other), "zstd"), zstandard.compress(Other(text="x").SerializeToString())).text == "x"


@pytest.mark.parametrize(
    ("user_property", "said"),
    [
        ([("content-encoding", "br")], "names 'br', which is none of gzip, zstd, identity"),
        ([("content-encoding", "gzip"), ("content-encoding", "gzip")], "stands in the message 2 times"),
        ([("content-encoding", "gzip")], "the body is not gzip: incorrect header check"),
        ([("content-encoding", "zstd")], "the body is not zstd: "),
    ],
)
def test_a_wrong_compression_is_told(user_property: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(PayloadError, match=said):
        read("json", b'{"a": 1}', user_property=user_property)
