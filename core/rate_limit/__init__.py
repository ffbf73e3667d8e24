"""Rate limits: how many messages run within a time."""

from __future__ import annotations

from core.rate_limit.counters import check, close, configure, start_anew
from core.rate_limit.limit import RateLimit

__all__ = ["RateLimit", "check", "close", "configure", "start_anew"]
