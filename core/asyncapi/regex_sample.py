"""A text that a regular expression matches."""

from __future__ import annotations

import re
import warnings

_CLASSES = {"d": "0", "w": "a", "s": " ", "D": "a", "W": "-", "S": "a"}
_CONTROL = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
_USUAL = ("text", "a", "A", "0", "1", "1.5", "AB", "12", "a1", "A1", "ABC-123", "abc-123", "a@b.example")
_PRINTABLE = "a0A-_ " + "".join(map(chr, range(33, 127)))
MAX_CHARACTERS = 1000


def sample(pattern: str, shortest: int = 0, longest: int | None = None) -> str | None:
    """Return a text of ``shortest`` to ``longest`` characters that ``pattern`` matches, always the same one.

    Literals, classes, groups, alternatives and repeats are understood. Return None if these are not enough.
    """
    try:
        with warnings.catch_warnings():
            # Pydantic's patterns are written for another library, so that Python's warnings about them help nobody.
            warnings.simplefilter("ignore")
            expression = re.compile(pattern)
            made = _Reader(pattern).read()
    except (re.error, RecursionError):
        return None
    longer = [one + one[-1] * (shortest - len(one)) for one in (*_USUAL, made or "") if one]
    for candidate in ([made] if made is not None else []) + longer:
        if shortest <= len(candidate) and (longest is None or len(candidate) <= longest) and expression.search(candidate):
            return candidate
    return None


class _Reader:
    """Reads a pattern from left to right and makes a short text for it. The caller checks whether the text matches."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    def read(self) -> str | None:
        try:
            text = self._alternatives()
        except (IndexError, ValueError):
            return None
        return text if self._at == len(self._pattern) else None

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self) -> str:
        self._at += 1
        return self._pattern[self._at - 1]

    def _alternatives(self) -> str:
        first = self._sequence()
        while self._peek() == "|":
            self._take()
            self._sequence()
        return first

    def _sequence(self) -> str:
        parts: list[str] = []
        while self._peek() not in {"", "|", ")"}:
            part = self._one()
            times = self._repeats()
            if len(part) * times > MAX_CHARACTERS:
                raise ValueError(times)
            parts.append(part * times)
        return "".join(parts)

    def _one(self) -> str:
        character = self._take()
        if character in "^$":
            return ""
        if character == ".":
            return "a"
        if character == "\\":
            return self._escaped(self._take())
        if character == "[":
            return self._class()
        if character == "(":
            return self._group()
        return character

    def _escaped(self, character: str) -> str:
        if character in "bBAZ":
            return ""
        if character.isdigit():
            raise ValueError(character)
        return _CLASSES.get(character, _CONTROL.get(character, character))

    def _class(self) -> str:
        start = self._at
        if self._peek() == "^":
            self._take()
        if self._peek() == "]":
            self._take()
        while self._take() != "]":
            if self._pattern[self._at - 1] == "\\":
                self._take()
        one = re.compile("[" + self._pattern[start : self._at])
        found = [character for character in _PRINTABLE if one.match(character)]
        return found[0]

    def _group(self) -> str:
        silent = False
        if self._peek() == "?":
            self._take()
            kind = self._take()
            if kind == "P" and self._peek() == "<":
                self._at = self._pattern.index(">", self._at) + 1
            elif kind in "=!" or (kind == "<" and self._peek() in {"=", "!"}):
                # A lookahead or a lookbehind adds no text.
                silent = True
                if kind == "<":
                    self._take()
            elif kind != ":":
                raise ValueError(kind)
        inner = self._alternatives()
        self._take()
        return "" if silent else inner

    def _repeats(self) -> int:
        """Read how often the last part is repeated. Return the fewest times allowed, but 1 for ``*``."""
        found = re.compile(r"(?:([*?+])|\{(\d*)(?:,\d*)?\})[?+]?").match(self._pattern, self._at)
        if found is None:
            return 1
        self._at = found.end()
        if found[1]:
            return 0 if found[1] == "?" else 1
        return int(found[2] or 0)
