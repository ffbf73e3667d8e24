"""What a codec is: the contract of all of them."""

from __future__ import annotations

from typing import Any, Protocol


class Codec(Protocol):
    """Two methods, which raise PayloadError with a sentence that says what is wrong where.

    A codec may also have:

    - ``content_type`` (MQTT 5, 3.3.2.3.9), which replies carry, and by which ``codec="auto"`` finds the codec.
    - ``decode_within(body, depth)``, which bounds nesting itself. Without it, the nesting of what ``decode`` returns is
      measured.
    """

    def decode(self, body: bytes) -> Any:
        """Return the payload that ``body`` holds. Raise PayloadError."""

    def encode(self, value: Any) -> bytes:
        """Return the body that holds ``value``. Raise PayloadError."""


def begin(body: bytes) -> str:
    """Return the beginning of ``body`` for a person to read: one line of at most 60 characters."""
    text = ascii(body[:40].decode("utf-8", "backslashreplace"))
    return text[:57] + "..." if len(text) > 60 or len(body) > 40 else text
