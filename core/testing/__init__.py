"""Tests of applications. Messages go the whole way, from bytes to rows, without a network."""

from __future__ import annotations

from core.runtime.clock import ManualClock
from core.testing.client import TestClient
from core.testing.devices import Published

__all__ = ["ManualClock", "Published", "TestClient"]
