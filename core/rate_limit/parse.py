"""Limits as they are written: "100/minute"."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from core.errors import RouteError
from core.rate_limit.windows import MAX_STAMPS

if TYPE_CHECKING:
    from limits import RateLimitItem

_LIMIT = re.compile(r"[1-9][0-9]*\s*(/|per\s)\s*([1-9][0-9]*)?\s*[a-z]+", re.IGNORECASE)


def parse(limit: str) -> RateLimitItem:
    """Return the limit that ``limit`` says, such as "100/minute" or "1000 per 2 hours". Raise RouteError."""
    # Only here: the library takes a third of a second to import, which applications without rate limits need not wait for.
    from limits import parse as parsed  # noqa: PLC0415

    allowed = "write a number and a time, such as '100/minute', '5/second' or '1000 per 2 hours'"
    if not isinstance(limit, str) or not _LIMIT.fullmatch(limit.strip()):
        raise RouteError(f"RateLimit({limit!r}): {allowed}; for two limits give two RateLimits")
    try:
        item = parsed(limit)
    except ValueError:
        raise RouteError(f"RateLimit({limit!r}): {allowed}; times are second, minute, hour, day, month, year") from None
    if item.amount > MAX_STAMPS:
        raise RouteError(f"RateLimit({limit!r}): at most {MAX_STAMPS:,} messages; give the limit for a shorter time")
    return item
