"""Rate limits: how many messages pass within a time."""

from __future__ import annotations

from core.rate_limit.limit import RateLimit, check, close, configure, start_anew

__all__ = ["RateLimit", "check", "close", "configure", "start_anew"]
