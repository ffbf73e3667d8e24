"""Short texts of the page: pieces, each with a style. The templates make elements of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

Style = Literal["plain", "code", "model", "json-name", "json-text", "json-value"]
_CODE = re.compile(r"(``.+?``|`[^`]+`)")


class Piece(NamedTuple):
    """Text in one style. A piece in the style "model" is the name of a model, and links to it."""

    text: str
    style: Style = "plain"


Words = tuple[Piece, ...]


class Fact(NamedTuple):
    """A line in a list of facts, such as "Order" and the order in which messages are handled."""

    name: str
    value: Words


def plain(text: str) -> Words:
    """Return ``text`` as it is."""
    return (Piece(text),)


def code(text: str) -> Words:
    """Return ``text`` as code."""
    return (Piece(text, "code"),)


def join(parts: Iterable[Words | str], between: str = "") -> Words:
    """Return ``parts`` one after the other, with ``between`` between them.

    Adjacent plain pieces become one, so that words which read the same are equal.
    """
    found: list[Piece] = []
    for number, part in enumerate(parts):
        gap = plain(between) if number and between else ()
        for piece in gap + (plain(part) if isinstance(part, str) else part):
            if found and found[-1].style == piece.style == "plain":
                found[-1] = Piece(found[-1].text + piece.text)
            else:
                found.append(piece)
    return tuple(found)


def inline(text: str) -> Words:
    """Return ``text`` with what stands in backticks as code."""
    return join(code(part.strip("`").strip()) if _CODE.fullmatch(part) else part for part in _CODE.split(text) if part)
