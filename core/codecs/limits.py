"""How large a body may be, and how deeply lists and maps in it may be nested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.errors import PayloadError


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a body.

    - ``bytes``: bytes of a body at the most, also after decompression.
    - ``depth``: levels of lists and maps within each other at the most.
    """

    bytes: int = 4_194_304
    depth: int = 100


DEFAULT = Limits()


def check_size(size: int, limits: Limits) -> None:
    """Raise PayloadError where ``size`` bytes are too many for a body."""
    if size > limits.bytes:
        raise PayloadError(f"the body has {size:,} bytes. At most {limits.bytes:,} are accepted (MAX_PAYLOAD_BYTES)")


def check_depth(value: Any, depth: int) -> None:
    """Raise PayloadError where lists and maps in ``value`` are nested more than ``depth`` levels deep.

    Go level by level, without recursion. A list that stands in several places of a level is looked at once.
    """
    level = {id(value): value} if isinstance(value, _CONTAINERS) else {}
    for _ in range(depth):
        if not level:
            return
        level = {
            id(child): child
            for container in level.values()
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, _CONTAINERS)
        }
    if level:
        raise too_deep(depth)


_CONTAINERS = (dict, list, tuple, set, frozenset)


def too_deep(depth: int) -> PayloadError:
    """Return the error for what is nested more than ``depth`` levels deep."""
    return PayloadError(
        f"the body is nested too deeply: more than {depth:,} lists and maps within each other (MAX_PAYLOAD_DEPTH)"
    )
