"""Docstrings and descriptions as paragraphs, lists and code blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from core.asyncapi.page.words import Words, inline, plain

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph or a code block, which has one part, or a list, whose items are the parts."""

    kind: Literal["paragraph", "list", "code"]
    parts: tuple[Words, ...]


def prose(text: str) -> list[Block]:
    """Return the blocks of ``text``, a docstring or a description."""
    return [block for part in re.split(r"\n\s*\n", text.strip("\n")) if part.strip() for block in _blocks(part)]


def _blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of ``text``, which has no empty lines."""
    lines = text.split("\n")
    if all(line.startswith(("    ", "\t")) for line in lines):
        yield Block("code", (plain("\n".join(line.removeprefix("\t").removeprefix("    ") for line in lines)),))
        return
    for listed, group in groupby(_whole(lines), lambda line: line.startswith(("- ", "* "))):
        if listed:
            yield Block("list", tuple(inline(line[2:].strip()) for line in group))
        else:
            yield Block("paragraph", (inline(" ".join(group)),))


def _whole(lines: list[str]) -> list[str]:
    """Return the lines and list items. The indented lines that continue an item are joined to it."""
    found: list[str] = []
    for line in lines:
        if found and found[-1].startswith(("- ", "* ")) and line.startswith(" "):
            found[-1] += " " + line.strip()
        else:
            found.append(line.strip())
    return found
