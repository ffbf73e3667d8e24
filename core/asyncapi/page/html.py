"""HTML that is put together of parts: whatever is not made here is escaped."""

from __future__ import annotations

import re
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_VOID = {"meta", "input", "wbr", "br"}
_CODE = re.compile(r"(``.+?``|`[^`]+`)")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str | bool) -> Markup:
    """Give the element ``name``. An attribute's ``_`` stands for ``-``, ``class_`` for class; True alone is written bare."""
    said = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{said}>")
    return Markup(f"<{name}{said}>{join(children)}</{name}>")


def join(parts: Iterable[str], between: str = "") -> Markup:
    """Give ``parts`` behind one another, those escaped that are not Markup."""
    gap = _safe(between)
    return Markup(gap.join(_safe(part) for part in parts))


def inline(text: str) -> Markup:
    """Give ``text`` with what stands in backticks as code."""
    return join(
        tag("code", part.strip("`").strip()) if _CODE.fullmatch(part) else part for part in _CODE.split(text) if part
    )


def prose(text: str) -> Markup:
    """Give ``text``, a docstring or a description, as paragraphs, lists and code blocks."""
    return join(_block(block) for block in re.split(r"\n\s*\n", text.strip("\n")) if block.strip())


def _block(block: str) -> Markup:
    lines = block.split("\n")
    if all(line.startswith(("    ", "\t")) for line in lines):
        return tag("pre", tag("code", "\n".join(line.removeprefix("\t").removeprefix("    ") for line in lines)))
    parts = []
    for listed, group in groupby(_whole(lines), lambda line: line.startswith(("- ", "* "))):
        if listed:
            parts.append(tag("ul", *(tag("li", inline(line[2:].strip())) for line in group)))
        else:
            parts.append(tag("p", inline(" ".join(group))))
    return join(parts)


def _whole(lines: list[str]) -> list[str]:
    """Give lines and list items, each item with the lines that go on with it."""
    found: list[str] = []
    for line in lines:
        if found and found[-1].startswith(("- ", "* ")) and line.startswith(" "):
            found[-1] += " " + line.strip()
        else:
            found.append(line.strip())
    return found


def _safe(text: str) -> str:
    return text if isinstance(text, Markup) else escape(text)
