"""gzip and zstd, with a bound on the size of what comes out."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

from core.codecs.codec import begin
from core.codecs.limits import Limits
from core.errors import PayloadError

PROPERTY = "content-encoding"
"""The user property (MQTT 5, 3.3.2.3.7) that names the compression of a body."""
NONE = "identity"
_GZIP = 31
"""zlib's number for a gzip header and the largest window."""
MAX_WINDOW = 8 * 1024 * 1024
"""Bytes of the largest window that is accepted: what RFC 8878, 3.1.1.1.2 recommends decoders to support."""


class Compression(NamedTuple):
    """How bodies are compressed.

    - ``compress``: returns a compressed body. Raises PayloadError.
    - ``decompress``: returns a body, and stops at the limit of its size. Raises PayloadError.
    - ``needs``: the package of the library that does it, or None where Python itself does.
    """

    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes, Limits], bytes]
    needs: str | None


def _too_large(name: str, limits: Limits) -> PayloadError:
    return PayloadError(
        f"the body has more than {limits.bytes:,} bytes when it is decompressed ({name}). No more are accepted "
        "(MAX_PAYLOAD_BYTES)"
    )


def _broken(name: str, why: str, body: bytes) -> PayloadError:
    return PayloadError(f"the body is not {name}: {why}. It begins {begin(body)}")


def _gunzip(body: bytes, limits: Limits) -> bytes:
    decompressor = zlib.decompressobj(_GZIP)
    try:
        found = decompressor.decompress(body, limits.bytes + 1)
    except zlib.error as error:
        raise _broken("gzip", str(error).rpartition(": ")[2], body) from None
    if len(found) > limits.bytes:
        raise _too_large("gzip", limits)
    if not decompressor.eof:
        raise _broken("gzip", "it is cut off", body)
    if decompressor.unused_data:
        raise _broken("gzip", "something follows after its end", body)
    return found


@lru_cache(1)
def _zstandard() -> Any:
    """Return the library. Raise PayloadError where it is not installed."""
    try:
        return import_module("zstandard")
    except ImportError:
        raise PayloadError(
            "the body is compressed with zstd, which needs the package zstandard. It is not installed: pip install zstandard"
        ) from None


def _unzstd(body: bytes, limits: Limits) -> bytes:
    library = _zstandard()
    decompressor = library.ZstdDecompressor(max_window_size=MAX_WINDOW)
    try:
        size = library.get_frame_parameters(body).content_size
        declared = size != library.CONTENTSIZE_UNKNOWN
        if declared and size > limits.bytes:
            raise _too_large("zstd", limits)
        found = bytes(decompressor.decompress(body, max_output_size=limits.bytes, allow_extra_data=False))
        if not declared:
            # It passes over whatever follows after a frame that does not say its size.
            again = decompressor.decompressobj()
            again.decompress(body)
            if again.unused_data:
                raise _broken("zstd", "something follows after its end", body)
    except library.ZstdError as error:
        why = str(error).removeprefix("decompression error: ")
        if "full frame" in why:
            # It says the same of a frame that is cut off and of one that does not fit.
            if len(decompressor.stream_reader(body).read(limits.bytes + 1)) > limits.bytes:
                raise _too_large("zstd", limits) from None
            why = "it is cut off"
        raise _broken("zstd", "it is cut off" if "not enough data" in why else why, body) from None
    return found


COMPRESSIONS = {
    "gzip": Compression(lambda body: gzip.compress(body, mtime=0), _gunzip, None),
    "zstd": Compression(lambda body: bytes(_zstandard().ZstdCompressor().compress(body)), _unzstd, "zstandard"),
}


def of_properties(user_property: list[tuple[str, str]]) -> Compression | None:
    """Return the compression that a message's user properties name, or None where they name none.

    Raise PayloadError for an unknown one.
    """
    named = [value for name, value in user_property if name.lower() == PROPERTY]
    if not named:
        return None
    if len(named) > 1:
        raise PayloadError(f"the user property {PROPERTY} stands in the message {len(named)} times. It may stand there once")
    name = named[0].strip().lower()
    if name in {"", NONE}:
        return None
    if name not in COMPRESSIONS:
        known = ", ".join([*COMPRESSIONS, NONE])
        raise PayloadError(f"the user property {PROPERTY} names {name[:60]!r}, which is none of {known}")
    return COMPRESSIONS[name]
