"""The tree that finds the pattern of a topic (MQTT 5, 4.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.mqtt.topics import Converter, Level, Pattern, Rest, takes

if TYPE_CHECKING:
    from collections.abc import Callable


class _Node:
    """One level of the tree.

    - ``first``: the lowest number of the patterns that go through this level or end at it.
    - ``literals``, ``levels``: the next levels, by their text and by their converters.
    - ``end``: the number of the pattern that ends here.
    - ``rest``, ``rest_named``: the numbers of the patterns that go on with ``#`` and with ``<path:name>``.
    """

    __slots__ = ("end", "first", "levels", "literals", "rest", "rest_named")

    def __init__(self, first: int) -> None:
        self.first = first
        self.literals: dict[str, _Node] = {}
        self.levels: list[tuple[Converter, _Node]] = []
        self.end: int | None = None
        self.rest: int | None = None
        self.rest_named: int | None = None


class Tree:
    """Patterns in order of their registration. Where several take a topic, the first registered wins.

    A look-up walks the levels of the topic, so that its cost depends on the topic and not on the number of patterns. It
    leaves out the branches whose patterns were all registered after the best one found so far.
    """

    def __init__(self) -> None:
        self._root = _Node(0)
        self.patterns: list[Pattern] = []
        self._getters: list[tuple[tuple[str, int, Callable[[str], Any] | None], ...]] = []

    def add(self, pattern: Pattern) -> int:
        """Add ``pattern`` behind all others, and return its number."""
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
        """Return the number of the first pattern that takes ``topic``, and the topic's parameters. None if there is none.

        No pattern takes what no message may have as its topic (MQTT 5, 4.7.3), whatever the broker lets through.
        """
        if not topic or "+" in topic or "#" in topic or "\0" in topic:
            return None
        levels = topic.split("/")
        number = self._find(levels, convert=True)
        if number is None:
            return None
        params: dict[str, Any] = {}
        for name, position, convert in self._getters[number]:
            params[name] = "/".join(levels[position:]) if convert is None else convert(levels[position])
        return number, params

    def near(self, topic: str) -> Pattern | None:
        """Return the first pattern that would take ``topic`` if its converters took everything. None if there is none."""
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
        """Return the first pattern in the tree that takes every topic which ``pattern`` takes. None if there is none."""
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
            # <path:x> and +/# take at least one level. A bare # takes none as well, except at the top: every topic has one.
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
