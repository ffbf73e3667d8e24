"""Topics, topic filters and topic patterns (MQTT 5, 4.7)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any
from uuid import UUID

from core.errors import TopicError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES = 65_535
_PARAMETER = re.compile(r"(?:<(?:(?P<a>[^:<>{}]*):)?(?P<b>[^:<>{}]*)>|\{(?:(?P<c>[^:<>{}]*):)?(?P<d>[^:<>{}]*)\})\Z")


@dataclass(frozen=True, slots=True)
class Converter:
    """What a parameter takes.

    - ``name``: the name of the converter, as patterns write it.
    - ``convert``: returns the value of a level. Raises ValueError for a level that the converter does not take.
    - ``within``: the names of the converters that take all that this one takes.
    """

    name: str
    convert: Callable[[str], Any]
    within: frozenset[str]


def _int(level: str) -> int:
    # int() alone would take '1_000', ' 1' and Arabic digits. 1,000 digits are no number that a device sends.
    if len(level) > 100 or not re.fullmatch(r"-?[0-9]+", level):
        raise ValueError(level)
    return int(level)


def _float(level: str) -> float:
    if len(level) > 100 or not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", level):
        raise ValueError(level)
    number = float(level)
    if not isfinite(number):
        raise ValueError(level)
    return number


def _uuid(level: str) -> UUID:
    # UUID() alone would also take braces, 'urn:uuid:' and missing hyphens.
    if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", level):
        raise ValueError(level)
    return UUID(level)


CONVERTERS = {
    converter.name: converter
    for converter in (
        Converter("str", str, frozenset({"str"})),
        Converter("int", _int, frozenset({"int", "float", "str"})),
        Converter("float", _float, frozenset({"float", "str"})),
        Converter("uuid", _uuid, frozenset({"uuid", "str"})),
    )
}


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a pattern, which takes what its converter takes. ``name`` is None for a bare ``+``."""

    name: str | None
    converter: Converter


@dataclass(frozen=True, slots=True)
class Rest:
    """The end of a pattern that takes all further levels.

    ``name`` is None for a bare ``#``, which also takes the parent level (MQTT 5, 4.7.1.2). ``<path:name>`` does not take
    that, since there would be nothing to name.
    """

    name: str | None


Segment = str | Level | Rest


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed topic pattern: its text, its segments, and the topic filter that brings its messages."""

    text: str
    segments: tuple[Segment, ...]
    topic_filter: str

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the parameters, in order."""
        return tuple(segment.name for segment in self.segments if not isinstance(segment, str) and segment.name is not None)


def check_topic(topic: str) -> str:
    """Return ``topic`` if a message can be published on it (MQTT 5, 4.7.3). Raise TopicError otherwise."""
    _check_text(topic, "topic")
    if "+" in topic or "#" in topic:
        raise TopicError(f"topic {topic!r}: the wildcards + and # stand in topic filters, not in the topic of a message")
    return topic


def check_filter(topic_filter: str) -> str:
    """Return ``topic_filter`` if it is a topic filter (MQTT 5, 4.7.1). Raise TopicError otherwise."""
    _check_text(topic_filter, "topic filter")
    levels = topic_filter.split("/")
    for position, level in enumerate(levels):
        if level == "#" and position != len(levels) - 1:
            raise TopicError(f"topic filter {topic_filter!r}: # takes all further levels, so it must be the last one")
        if level not in {"+", "#"} and ("+" in level or "#" in level):
            raise TopicError(f"topic filter {topic_filter!r}: a wildcard takes a whole level, not a part like {level!r}")
    return topic_filter


def _check_text(text: str, what: str) -> None:
    if not text:
        raise TopicError(f"a {what} must not be empty")
    if "\0" in text:
        raise TopicError(f"{what} {text!r}: the character NUL is not allowed")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise TopicError(f"{what} {text!r} cannot be written in UTF-8") from None
    if size > MAX_BYTES:
        raise TopicError(f"{what} {text[:40]!r}... has {size:,} bytes. At most {MAX_BYTES:,} are allowed")


def matches(topic_filter: str, topic: str) -> bool:
    """Return whether ``topic_filter`` takes ``topic`` (MQTT 5, 4.7). Both must be valid."""
    wanted = topic_filter.split("/")
    levels = topic.split("/")
    if topic.startswith("$") and wanted[0] in {"+", "#"}:
        return False
    for position, level in enumerate(wanted):
        if level == "#":
            return True
        if position == len(levels) or level not in {"+", levels[position]}:
            return False
    return len(wanted) == len(levels)


def covers(wide: str, narrow: str) -> bool:
    """Return whether the topic filter ``wide`` takes every topic that ``narrow`` takes. Both must be valid."""
    # Every topic has a first level, so that "+/#" and "#" take the same.
    wides, narrows = ["#"] if wide == "+/#" else wide.split("/"), narrow.split("/")
    if narrow.startswith("$") and wides[0] in {"+", "#"}:
        return False
    for position, level in enumerate(wides):
        if level == "#":
            return True
        if position == len(narrows) or narrows[position] == "#" or level not in {"+", narrows[position]}:
            return False
    return len(wides) == len(narrows)


def parse(text: str) -> Pattern:
    """Return a topic pattern such as ``devices/<int:device_id>/data`` or ``devices/{device_id}/#``, parsed.

    Raise TopicError for what is not a topic pattern.
    """
    _check_text(text, "topic pattern")
    levels = text.split("/")
    segments = tuple(_segment(level, text, last=position == len(levels) - 1) for position, level in enumerate(levels))
    names = [segment.name for segment in segments if not isinstance(segment, str) and segment.name is not None]
    for name in names:
        if names.count(name) > 1:
            raise TopicError(f"topic pattern {text!r}: the parameter {name!r} stands in it more than once")
    parts = [s if isinstance(s, str) else "+" if isinstance(s, Level) else "#" for s in segments]
    return Pattern(text, segments, "/".join(parts))


def _segment(level: str, text: str, *, last: bool) -> Segment:
    """Return what one level of the pattern ``text`` takes. Raise TopicError where it is wrong."""
    if level == "+":
        return Level(None, CONVERTERS["str"])
    found = _PARAMETER.match(level)
    if level != "#" and found is None:
        if any(character in level for character in "<>{}"):
            raise TopicError(
                f"topic pattern {text!r}: {level!r} is not a whole parameter. Write <name> or {{name}} for a whole "
                "level, since MQTT's wildcards do not take parts of levels"
            )
        if "+" in level or "#" in level:
            raise TopicError(f"topic pattern {text!r}: a wildcard takes a whole level, not a part like {level!r}")
        return level
    kind = (found["a"] or found["c"] or "str") if found else "path"
    if kind == "path" and not last:
        raise TopicError(f"topic pattern {text!r}: {level!r} takes all further levels, so it must be the last one")
    if found is None:
        return Rest(None)
    name = found["b"] if found["b"] is not None else found["d"]
    if not name.isidentifier():
        raise TopicError(f"topic pattern {text!r}: {name!r} cannot be the name of a parameter. Use letters, digits and _")
    if kind == "path":
        return Rest(name)
    if kind not in CONVERTERS:
        known = ", ".join([*CONVERTERS, "path"])
        raise TopicError(f"topic pattern {text!r}: there is no converter {kind!r}. There are {known}")
    return Level(name, CONVERTERS[kind])


def takes(converter: Converter, level: str) -> bool:
    """Return whether ``converter`` takes ``level``."""
    if converter.convert is str:
        return True
    try:
        converter.convert(level)
    except ValueError:
        return False
    return True
