"""The text of a limit, such as "100/minute"."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from core.errors import RouteError
from core.rate_limit.windows import MAX_STAMPS

if TYPE_CHECKING:
    from limits import RateLimitItem

_LIMIT = re.compile(r"[1-9][0-9]*\s*(/|per\s)\s*([1-9][0-9]*)?\s*[a-z]+", re.IGNORECASE)


def parse(limit: str) -> RateLimitItem:
    """Return the number and the time of ``limit``, such as "100/minute" or "1000 per 2 hours".

    Raise RouteError for a text that is no limit, for several limits, and for a limit above MAX_STAMPS messages.
    """
    # The library takes a third of a second to import, for which applications without rate limits need not wait.
    from limits import parse as parsed  # noqa: PLC0415

    examples = "'100/minute', '5/second' or '1000 per 2 hours'"
    refusal = f"RateLimit({limit!r}) is not a limit. Write a number and a time, such as {examples}"
    if not isinstance(limit, str) or not _LIMIT.fullmatch(limit.strip()):
        raise RouteError(f"{refusal}. For two limits, give two RateLimits")
    try:
        item = parsed(limit)
    except ValueError:
        raise RouteError(f"{refusal}. The times are second, minute, hour, day, month and year") from None
    if item.amount > MAX_STAMPS:
        raise RouteError(
            f"RateLimit({limit!r}): {item.amount:,} messages cannot be counted, at most {MAX_STAMPS:,} can. "
            "Give the limit for a shorter time"
        )
    return item
