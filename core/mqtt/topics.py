"""Topics, topic filters and topic patterns, and the tree that finds the pattern of a topic (MQTT 5, 4.7)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any
from uuid import UUID

from core.errors import TopicError

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_BYTES = 65_535
_PARAMETER = re.compile(r"(?:<(?:(?P<a>[^:<>{}]*):)?(?P<b>[^:<>{}]*)>|\{(?:(?P<c>[^:<>{}]*):)?(?P<d>[^:<>{}]*)\})\Z")


@dataclass(frozen=True, slots=True)
class Converter:
    """What a parameter takes: ``convert`` gives a level's value, or raises ValueError; ``within`` what also takes it."""

    name: str
    convert: Callable[[str], Any]
    within: frozenset[str]


def _int(level: str) -> int:
    # int() alone would take '1_000', ' 1' and Arabic digits; 1,000 digits are no number that a device sends.
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
    """One level of a pattern that takes any text, or what its converter takes; ``name`` is None for a bare ``+``."""

    name: str | None
    converter: Converter


@dataclass(frozen=True, slots=True)
class Rest:
    """The end of a pattern that takes all further levels.

    ``name`` is None for a bare ``#``, which also takes the parent level (MQTT 5, 4.7.1.2); ``<path:name>`` does not, since
    there would be nothing to name.
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
        """The names of the parameters, in order."""
        return tuple(segment.name for segment in self.segments if not isinstance(segment, str) and segment.name is not None)


def check_topic(topic: str) -> str:
    """Give ``topic`` back if a message can be published on it (MQTT 5, 4.7.3). Raises TopicError."""
    _check_text(topic, "topic")
    if "+" in topic or "#" in topic:
        raise TopicError(f"topic {topic!r}: wildcards + and # stand in topic filters, not in the topic of a message")
    return topic


def check_filter(topic_filter: str) -> str:
    """Give ``topic_filter`` back if it is one (MQTT 5, 4.7.1). Raises TopicError."""
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
        raise TopicError(f"{what} {text!r}: it cannot be written in UTF-8") from None
    if size > MOST_BYTES:
        raise TopicError(f"{what} {text[:40]!r}...: {size:,} bytes, at most {MOST_BYTES:,} are allowed")


def matches(topic_filter: str, topic: str) -> bool:
    """Say whether ``topic_filter`` takes ``topic`` (MQTT 5, 4.7); both must be valid."""
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
    """Say whether the topic filter ``wide`` takes every topic that ``narrow`` takes; both must be valid."""
    # Every topic has a first level, so these two take the same.
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
    """Parse a topic pattern such as ``devices/<int:device_id>/data`` or ``devices/{device_id}/#``. Raises TopicError."""
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
    """Give one level of the pattern ``text`` as what it takes."""
    if level == "+":
        return Level(None, CONVERTERS["str"])
    found = _PARAMETER.match(level)
    if level != "#" and found is None:
        if any(character in level for character in "<>{}"):
            raise TopicError(
                f"topic pattern {text!r}: {level!r} is not a whole parameter; write <name> or {{name}} for a whole "
                "level, since MQTT's wildcards take no parts of levels"
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
        raise TopicError(f"topic pattern {text!r}: {name!r} is no name for a parameter; use letters, digits and _")
    if kind == "path":
        return Rest(name)
    if kind not in CONVERTERS:
        known = ", ".join([*CONVERTERS, "path"])
        raise TopicError(f"topic pattern {text!r}: there is no converter {kind!r}; there are {known}")
    return Level(name, CONVERTERS[kind])


class _Node:
    """One level deep in the tree. ``first`` is the lowest number of any pattern at or below it."""

    __slots__ = ("end", "first", "levels", "literals", "rest", "rest_named")

    def __init__(self, first: int) -> None:
        self.first = first
        self.literals: dict[str, _Node] = {}
        self.levels: list[tuple[Converter, _Node]] = []
        self.end: int | None = None
        self.rest: int | None = None
        self.rest_named: int | None = None


class Tree:
    """Patterns in order of their registration; where several take a topic, the first registered wins.

    A look-up walks the levels of the topic, so its cost depends on the topic, not on the number of patterns. Of the
    branches that take a level, those are passed over that hold no earlier pattern than the best one found.
    """

    def __init__(self) -> None:
        self._root = _Node(0)
        self.patterns: list[Pattern] = []
        self._getters: list[tuple[tuple[str, int, Callable[[str], Any] | None], ...]] = []

    def add(self, pattern: Pattern) -> int:
        """Add ``pattern`` behind all others and give its number."""
        number = len(self.patterns)
        self.patterns.append(pattern)
        self._getters.append(
            tuple(
                (segment.name, position, None if isinstance(segment, Rest) else segment.converter.convert)
                for position, segment in enumerate(pattern.segments)
                if not isinstance(segment, str) and segment.name is not None
            )
        )
        node = self._root
        for segment in pattern.segments:
            if isinstance(segment, Rest):
                if segment.name is None:
                    node.rest = number if node.rest is None else node.rest
                else:
                    node.rest_named = number if node.rest_named is None else node.rest_named
                return number
            node = self._child(node, segment, number)
        if node.end is None:
            node.end = number
        return number

    @staticmethod
    def _child(node: _Node, segment: str | Level, number: int) -> _Node:
        if isinstance(segment, str):
            child = node.literals.get(segment)
            if child is None:
                child = node.literals[segment] = _Node(number)
            return child
        for converter, child in node.levels:
            if converter is segment.converter:
                return child
        child = _Node(number)
        node.levels.append((segment.converter, child))
        return child

    def find(self, topic: str) -> tuple[int, dict[str, Any]] | None:
        """Give the number of the first pattern that takes ``topic``, and its parameters; None if there is none."""
        levels = topic.split("/")
        number = self._find(levels, convert=True)
        if number is None:
            return None
        params: dict[str, Any] = {}
        for name, position, convert in self._getters[number]:
            params[name] = "/".join(levels[position:]) if convert is None else convert(levels[position])
        return number, params

    def near(self, topic: str) -> Pattern | None:
        """Give the first pattern that would take ``topic`` if its converters took everything; None if there is none."""
        number = self._find(topic.split("/"), convert=False)
        return None if number is None else self.patterns[number]

    def _find(self, levels: list[str], *, convert: bool) -> int | None:
        depth = len(levels)
        best = len(self.patterns)
        # A topic that begins with $ is not for patterns that begin with a wildcard (MQTT 5, 4.7.2).
        reserved = levels[0].startswith("$")
        stack = [(self._root, 0)]
        while stack:
            node, position = stack.pop()
            if node.first >= best:
                continue
            wild = position > 0 or not reserved
            if node.rest is not None and wild and node.rest < best:
                best = node.rest
            if position == depth:
                if node.end is not None and node.end < best:
                    best = node.end
                continue
            if node.rest_named is not None and wild and node.rest_named < best:
                best = node.rest_named
            level = levels[position]
            if wild:
                for converter, child in node.levels:
                    if child.first < best and (not convert or takes(converter, level)):
                        stack.append((child, position + 1))
            literal = node.literals.get(level)
            if literal is not None:
                stack.append((literal, position + 1))
        return None if best == len(self.patterns) else best

    def cover(self, pattern: Pattern) -> Pattern | None:
        """Give the first pattern in the tree that takes every topic which ``pattern`` takes; None if there is none."""
        segments = pattern.segments
        best = len(self.patterns)
        stack = [(self._root, 0)]
        while stack:
            node, position = stack.pop()
            segment = segments[position] if position < len(segments) else None
            wild = position > 0 or not (isinstance(segment, str) and segment.startswith("$"))
            if wild and node.rest is not None:
                best = min(best, node.rest)
            if segment is None:
                best = best if node.end is None else min(best, node.end)
                continue
            # <path:x> and +/# take at least one level, a bare # also none; but at the top every topic has one.
            some = not isinstance(segment, Rest) or segment.name is not None or position == 0
            if wild and some and node.rest_named is not None:
                best = min(best, node.rest_named)
            if isinstance(segment, Rest):
                for converter, child in node.levels:
                    if some and converter.convert is str and child.rest is not None:
                        best = min(best, child.rest)
                continue
            if isinstance(segment, str):
                literal = node.literals.get(segment)
                if literal is not None:
                    stack.append((literal, position + 1))
                stack.extend((child, position + 1) for converter, child in node.levels if wild and takes(converter, segment))
            else:
                stack.extend(
                    (child, position + 1) for converter, child in node.levels if converter.name in segment.converter.within
                )
        return None if best == len(self.patterns) else self.patterns[best]


def takes(converter: Converter, level: str) -> bool:
    """Say whether ``converter`` takes ``level``."""
    if converter.convert is str:
        return True
    try:
        converter.convert(level)
    except ValueError:
        return False
    return True
