"""What time it is, and waiting: real in the worker, moved by hand in tests of applications."""

from __future__ import annotations

import asyncio
from time import time
from typing import Protocol


class Clock(Protocol):
    """Where pauses between runs, and periodic work, take their time from."""

    def time(self) -> float:
        """Give the time in seconds since the epoch."""

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds``."""


class SystemClock:
    """The machine's own."""

    def time(self) -> float:
        """Give the time in seconds since the epoch."""
        return time()

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds``."""
        await asyncio.sleep(seconds)
