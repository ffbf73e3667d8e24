"""JSON with its names, texts and other values told apart."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from core.asyncapi.page.words import Piece, Words

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d[\d.eE+-]*|\b(?:true|false|null)\b)')


def tokens(value: Any) -> Words:
    """Return ``value`` as indented JSON."""
    return tuple(piece for piece in _pieces(json.dumps(value, indent=2, ensure_ascii=False)) if piece.text)


def _pieces(text: str) -> Iterator[Piece]:
    at = 0
    for found in _TOKEN.finditer(text):
        quoted, colon, other = found.groups(default="")
        yield Piece(text[at : found.start()])
        yield Piece(other, "json-value")
        yield Piece(quoted, "json-name" if colon else "json-text")
        yield Piece(colon)
        at = found.end()
    yield Piece(text[at:])
