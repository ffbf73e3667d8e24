"""The Python blocks of a page, each with what the comments before it say about how it is tested.

A comment is invisible to readers of the page and stands directly before its block. There may be several::

    <!-- test: given from app.models.device import Device -->   code that runs before the block: what the text introduced
    <!-- test: then assert client.published -->                code that runs after the block: what the text promises
    <!-- test: file app/models/meter_reading.py -->             the block is this file of an application
    <!-- test: part of app/models/sensor_reading.py -->         the block adds to the class of this file
    <!-- test: in a handler -->                                 the block is the body of a handler, with its context
    <!-- test: as a script -->                                  the block is a script that runs beside a worker
    <!-- test: as a migration on sqlite -->                     the block is a migration, or its upgrade(); or on postgresql

The code of ``given`` and ``then`` may also stand on lines of its own before the closing ``-->``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[3]
KINDS = ("file", "part of", "in a handler", "as a script", "as a migration on")

_COMMENT = re.compile(r"\s*<!-- test:")
_FENCE = re.compile(r"(?P<indent> *)(?P<fence>`{3,}|~{3,}) *(?P<language>[\w+-]*).*")


class PageError(Exception):
    """A page that cannot be read: its message names page, line and what is wrong there."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Code of a page, and the line of the page on which it begins."""

    line: int
    code: str


@dataclass(frozen=True, slots=True)
class Block:
    """A Python block: ``kind`` is one of ``KINDS`` or empty, and ``argument`` is what follows it in the comment."""

    piece: Piece
    kind: str = ""
    argument: str = ""
    given: list[Piece] = field(default_factory=list)
    then: list[Piece] = field(default_factory=list)

    @property
    def line(self) -> int:
        """The line of the block's fence, by which a test is named."""
        return self.piece.line - 1


def pages() -> list[Path]:
    """Return the pages whose blocks are tested."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks_of(page: Path) -> list[Block]:
    """Return the Python blocks of ``page`` in their order. Raise PageError for a comment that says nothing known."""
    return _Reader(page).blocks()


class _Reader:
    def __init__(self, page: Path) -> None:
        self._page = page
        self._lines = page.read_text().splitlines()
        self._at = 0
        self._comments: list[Piece] = []

    def blocks(self) -> list[Block]:
        found: list[Block] = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            fence = _FENCE.fullmatch(line)
            if fence is not None:
                block = self._fenced(fence)
                if block is not None:
                    found.append(block)
            elif _COMMENT.match(line):
                self._comments.append(self._comment())
            else:
                self._no_comments_here()
                self._at += 1
        self._no_comments_here()
        return found

    def _no_comments_here(self) -> None:
        if self._comments:
            raise self._error(self._comments[0], "no Python block follows this comment")

    def _comment(self) -> Piece:
        """Read a comment to its end."""
        first, said = self._at, []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            said.append(line.partition("-->")[0].rstrip())
            if "-->" in line:
                said[0] = said[0].partition("test:")[2].strip()
                return Piece(first + 1, "\n".join(said))
        raise self._error(Piece(first + 1, ""), "the comment does not end")

    def _fenced(self, fence: re.Match[str]) -> Block | None:
        """Read a block to its closing fence; return it if it is Python."""
        first = self._at + 1
        closing = re.compile(rf" *{fence['fence']}{fence['fence'][0]}* *")
        end = next((at for at in range(first, len(self._lines)) if closing.fullmatch(self._lines[at])), None)
        if end is None:
            raise self._error(Piece(first, ""), "the block does not end")
        self._at = end + 1
        if fence["language"] not in {"python", "py"}:
            self._no_comments_here()
            return None
        indent = len(fence["indent"])
        lines = [line[indent:] if not line[:indent].strip() else line for line in self._lines[first:end]]
        comments, self._comments = self._comments, []
        return self._block(Piece(first + 1, "\n".join([*lines, ""])), comments)

    def _block(self, piece: Piece, comments: list[Piece]) -> Block:
        kind = argument = ""
        given: list[Piece] = []
        then: list[Piece] = []
        for comment in comments:
            word, _, rest = comment.code.partition("\n") if "\n" in comment.code else comment.code.partition(" ")
            if word in {"given", "then"}:
                at = comment.line + ("\n" in comment.code)
                (given if word == "given" else then).append(Piece(at, dedent(rest) + "\n"))
                continue
            found = next((each for each in KINDS if comment.code == each or comment.code.startswith(f"{each} ")), None)
            if found is None or kind:
                raise self._error(comment, f"{comment.code!r} is not known; known are given, then and one of {KINDS}")
            kind, argument = found, comment.code.removeprefix(found).strip()
        return Block(piece, kind, argument, given, then)

    def _error(self, where: Piece, what: str) -> PageError:
        return PageError(f"{self._page.name}:{where.line}: {what}")
