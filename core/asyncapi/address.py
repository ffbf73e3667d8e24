"""Channel addresses: topic patterns as AsyncAPI writes them, with a parameter for each level that is not literal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.mqtt.topics import Level, Pattern, Rest, Segment

if TYPE_CHECKING:
    from collections.abc import Mapping

# A description and an example of what each converter takes.
_TAKES = {
    "str": ("One level of the topic: any text without a slash.", "a1"),
    "int": ("A whole number: digits, with or without a minus sign before them.", "42"),
    "float": ("A finite number, such as 21.5 or -3e2.", "21.5"),
    "uuid": ("A UUID, with its hyphens.", "3fa85f64-5717-4562-b3fc-2c963f66afa6"),
}
_PATH = ("One level of the topic or more, to its end, with the slashes between them.", "a/b")
_REST = ("None, one or more levels, to the end of the topic, with the slashes between them (the wildcard #).", "a/b")
_ANY = ("One level of the topic: any text without a slash, which the handler is not given (the wildcard +).", "a1")


def address(pattern: Pattern, converters: Mapping[str, str] | None = None) -> tuple[str, dict[str, Any]]:
    """Return the address of ``pattern``, such as ``devices/{device_id}/data``, and its Parameters Object.

    A bare ``+`` is named by its place, such as ``level_2``. A bare ``#`` is named ``rest``. ``converters`` are
    the converters of parameters that ``pattern`` leaves as text: a reply's topic takes those of its route's pattern.
    """
    levels: list[str] = []
    parameters: dict[str, Any] = {}
    taken = set(pattern.names)
    for place, segment in enumerate(pattern.segments, 1):
        if isinstance(segment, str):
            levels.append(segment)
            continue
        name = segment.name or _free("rest" if isinstance(segment, Rest) else f"level_{place}", taken)
        taken.add(name)
        key = _ascii(name)
        levels.append(f"{{{key}}}")
        parameters[key] = _parameter(segment, (converters or {}).get(name))
    return "/".join(levels), parameters


def converters(pattern: Pattern) -> dict[str, str]:
    """Return the converter's name for each parameter of ``pattern``. The rest of a topic has the converter "path"."""
    return {
        segment.name: segment.converter.name if isinstance(segment, Level) else "path"
        for segment in pattern.segments
        if not isinstance(segment, str) and segment.name is not None
    }


def _parameter(segment: Segment, converter: str | None) -> dict[str, Any]:
    if isinstance(segment, Rest):
        description, example = _REST if segment.name is None else _PATH
        return {"description": description, "examples": [example], "x-routemq-converter": "path"}
    kind = segment.converter.name if isinstance(segment, Level) else "str"
    if kind == "str" and converter is not None:
        kind = converter
    bare = isinstance(segment, Level) and segment.name is None
    description, example = _ANY if bare else _PATH if kind == "path" else _TAKES[kind]
    return {"description": description, "examples": [example], "x-routemq-converter": kind}


def _ascii(name: str) -> str:
    """Return a parameter's name in ASCII, as AsyncAPI requires. A name in Python may have letters of any script."""
    return name if name.isascii() else "".join(one if one.isascii() else f"u{ord(one):x}" for one in name)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
