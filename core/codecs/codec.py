"""What a codec is."""

from __future__ import annotations

from typing import Any, Protocol


class Codec(Protocol):
    """Two methods; both raise PayloadError with a sentence on what is wrong where.

    It may also have ``content_type`` (MQTT 5, 3.3.2.3.9), which replies carry and ``codec="auto"`` goes by, and
    ``decode_within(body, depth)``, for one that can bound nesting itself; what ``decode`` gives is measured otherwise.
    """

    def decode(self, body: bytes) -> Any:
        """Give the payload that ``body`` holds."""

    def encode(self, value: Any) -> bytes:
        """Give the body that holds ``value``."""


def begin(body: bytes) -> str:
    """Give the beginning of ``body`` for a message to a person: one line, at most 60 characters."""
    text = ascii(body[:40].decode("utf-8", "backslashreplace"))
    return text[:57] + "..." if len(text) > 60 or len(body) > 40 else text
