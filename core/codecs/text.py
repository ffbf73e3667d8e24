"""Codecs for bodies without structure: text, and bytes as they are."""

from __future__ import annotations

from typing import Any

from core.codecs.codec import begin
from core.errors import PayloadError


class Text:
    """Text in UTF-8."""

    content_type = "text/plain; charset=utf-8"

    def decode(self, body: bytes) -> str:
        """Return the text. Raise PayloadError for what is not UTF-8."""
        try:
            return body.decode()
        except UnicodeDecodeError as error:
            raise PayloadError(f"the body is not UTF-8 at byte {error.start}. It begins {begin(body)}") from None

    def encode(self, value: Any) -> bytes:
        """Return ``value``, a str, in UTF-8. Raise PayloadError for anything else."""
        if not isinstance(value, str):
            raise PayloadError(f"the codec text writes str, not {type(value).__name__}")
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise PayloadError(f"the text cannot be written in UTF-8 at character {error.start}") from None


class Raw:
    """The bytes as they are."""

    content_type = "application/octet-stream"

    def decode(self, body: bytes) -> bytes:
        """Return ``body``."""
        return body

    def encode(self, value: Any) -> bytes:
        """Return ``value``, which is bytes. Raise PayloadError for anything else."""
        if not isinstance(value, bytes | bytearray | memoryview):
            raise PayloadError(f"the codec raw writes bytes, not {type(value).__name__}")
        return bytes(value)


TEXT, RAW = Text(), Raw()
