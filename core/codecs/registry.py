"""Codecs by name: the built-in ones, those whose libraries are extras, and those that users registered."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

from core.codecs.codec import Codec
from core.codecs.compression import COMPRESSIONS
from core.codecs.json import JSON
from core.codecs.text import RAW, TEXT
from core.errors import PayloadError, RouteError
from core.runtime import Part, current

CODECS: Part[dict[str, Codec]] = Part(lambda: {"json": JSON, "text": TEXT, "raw": RAW})
"""The codecs of an application by their names: the built-in ones, and those that were registered or loaded."""


class _Extra(NamedTuple):
    """A codec whose library need not be installed.

    - ``module``: the module that holds the codec.
    - ``name``: the codec's class.
    - ``package``: the package of its library.
    - ``requirement``: what pip installs.
    """

    module: str
    name: str
    package: str
    requirement: str


_EXTRAS = {
    "msgpack": _Extra("core.codecs.msgpack", "MessagePack", "msgpack", "msgpack>=1.1,<2"),
    "cbor": _Extra("core.codecs.cbor", "Cbor", "cbor2", "cbor2>=6,<7"),
}
_CONTENT_TYPES = {
    "application/json": "json",
    "text/json": "json",
    "application/cbor": "cbor",
    "application/msgpack": "msgpack",
    "application/x-msgpack": "msgpack",
    "application/vnd.msgpack": "msgpack",
    "text/plain": "text",
    "application/octet-stream": "raw",
}
_PROTOBUF = frozenset({"application/x-protobuf", "application/protobuf", "application/vnd.google.protobuf"})
_SUFFIXES = {"+json": "json", "+cbor": "cbor"}
_NAME = re.compile(r"[a-z][a-z0-9_.-]*")
_RESERVED = ("auto", "protobuf")


@dataclass(frozen=True, slots=True)
class Compressed:
    """A codec whose bodies are compressed, whatever the message says. ``codec="json+zstd"`` stands for one."""

    codec: Codec
    compression: str


@dataclass(frozen=True, slots=True)
class Auto:
    """The codec that a message's content type names (MQTT 5, 3.3.2.3.9), or ``default`` where the message has none."""

    default: Codec | Compressed


CodecLike = str | Codec | Compressed | Auto
"""What a route takes as its ``codec``."""


def codecs_by_name() -> dict[str, Codec]:
    """Return the application's codecs by their names."""
    return current()[CODECS]


def register(name: str, codec: Codec) -> None:
    """Let routes name ``codec``: ``codec="name"`` and ``codec="name+zstd"``. "auto" finds it by its ``content_type``.

    A name has lower-case letters, digits, ``_``, ``-`` and ``.``. Raise RouteError for a name that is taken, and for what is
    not a codec.
    """
    if not _NAME.fullmatch(name):
        raise RouteError(f"codec {name!r}: the name may have lower-case letters, digits, _, - and . only")
    if name in codecs_by_name() or name in _EXTRAS or name in _RESERVED:
        raise RouteError(
            f"codec {name!r}: the name is taken. There are {', '.join(_names(codecs_by_name()))}. Choose another name"
        )
    codecs_by_name()[name] = _checked(codec)


def compressed(codec: str | Codec, compression: str) -> Compressed:
    """Return ``codec`` with its bodies compressed by "gzip" or "zstd". Raise RouteError."""
    found = COMPRESSIONS.get(compression)
    if found is None:
        raise RouteError(f"there is no compression {compression!r}. There are {', '.join(COMPRESSIONS)}")
    if found.needs is not None:
        _imported(found.needs, f"compression {compression!r}", found.needs, f"{found.needs}>=0.23,<1")
    return Compressed(_named(codec, codecs_by_name()) if isinstance(codec, str) else _checked(codec), compression)


def auto(default: str | Codec | Compressed = "json") -> Auto:
    """Return the codec "auto" with another default than JSON, which is also found by its ``content_type``.

    Raise RouteError.
    """
    found = resolve(default)
    if isinstance(found, Auto):
        raise RouteError("codec=auto(...) needs a codec as its default, and auto is none")
    return Auto(found)


def resolve(codec: CodecLike) -> Codec | Compressed | Auto:
    """Return what ``codec`` stands for. Raise RouteError, which says what there is or what to install."""
    if isinstance(codec, Compressed | Auto):
        return codec
    if not isinstance(codec, str):
        return _checked(codec)
    if codec == "auto":
        return Auto(JSON)
    name, plus, compression = codec.rpartition("+")
    return compressed(name, compression) if plus else _named(codec, codecs_by_name())


def by_content_type(content_type: str, default: Codec, codecs: dict[str, Codec]) -> Codec:
    """Return the codec of ``codecs`` for a message's content type. Raise PayloadError, which says what there is."""
    kind = content_type.partition(";")[0].strip().lower()
    own = _kind(default)
    if own is not None and (kind == own or (kind in _PROTOBUF and own in _PROTOBUF)):
        return default
    name = _CONTENT_TYPES.get(kind) or next((name for end, name in _SUFFIXES.items() if kind.endswith(end)), None)
    if name is not None:
        try:
            return _named(name, codecs)
        except RouteError as error:
            raise PayloadError(f"the content type {kind!r}: {error}") from None
    for codec in codecs.values():
        if _kind(codec) == kind:
            return codec
    further = [found for found in (*map(_kind, codecs.values()), own) if found is not None and found not in _CONTENT_TYPES]
    known = ", ".join(dict.fromkeys([*_CONTENT_TYPES, *further]))
    raise PayloadError(f"there is no codec for the content type {kind[:60]!r}. There are codecs for {known}"[:500])


def _kind(codec: Codec) -> str | None:
    content_type = getattr(codec, "content_type", None)
    return content_type.partition(";")[0].strip().lower() if isinstance(content_type, str) else None


def _names(codecs: dict[str, Codec]) -> list[str]:
    return [*codecs, *(name for name in _EXTRAS if name not in codecs), "protobuf(MessageClass)", "auto"]


def _named(name: str, codecs: dict[str, Codec]) -> Codec:
    codec = codecs.get(name)
    if codec is not None:
        return codec
    if name == "protobuf":
        raise RouteError("codec 'protobuf' needs its message class: from core.codecs import protobuf; protobuf(Class)")
    extra = _EXTRAS.get(name)
    if extra is None:
        endings = " and ".join(f"+{compression}" for compression in COMPRESSIONS)
        raise RouteError(f"there is no codec {name!r}. There are {', '.join(_names(codecs))}, each also with {endings}")
    module = _imported(extra.module, f"codec {name!r}", extra.package, extra.requirement)
    found: Codec = getattr(module, extra.name)()
    codecs[name] = found
    return found


def _imported(module: str, what: str, package: str, requirement: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise RouteError(f"{what} needs the package {package}. It is not installed: pip install '{requirement}'") from None
    except TypeError as error:
        raise RouteError(f"{what} needs a newer {package} ({error}): pip install '{requirement}'") from None


def _checked(codec: Any) -> Codec:
    if not (callable(getattr(codec, "decode", None)) and callable(getattr(codec, "encode", None))):
        raise RouteError(f"codec {codec!r} is not a codec: it needs the methods decode(body) and encode(value)")
    found: Codec = codec
    return found
