"""The time, and waiting: real in the worker, moved by hand in tests of applications."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count
from time import monotonic, time
from typing import Protocol

from core.runtime.runtime import Part, current


class Clock(Protocol):
    """The source of time for pauses between runs and for periodic work."""

    def time(self) -> float:
        """Return the time in seconds since the epoch."""

    def monotonic(self) -> float:
        """Return the seconds since some moment. They never go back."""

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds``."""


class SystemClock:
    """The machine's own clock."""

    def time(self) -> float:
        """Return the time in seconds since the epoch."""
        return time()

    def monotonic(self) -> float:
        """Return the seconds since some moment. They never go back."""
        return monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds``."""
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self._now = time()
        self._numbers = count()
        self._sleeping: list[tuple[float, int, asyncio.Future[None]]] = []

    def time(self) -> float:
        """Return the time in seconds since the epoch."""
        return self._now

    def monotonic(self) -> float:
        """Return the same time, since it is never moved back."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been moved by ``seconds``."""
        due: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleeping, (self._now + seconds, next(self._numbers), due))
        await due

    def next_due(self) -> float | None:
        """Return the time at which the next sleeper wakes, or None if nobody sleeps."""
        while self._sleeping and self._sleeping[0][2].done():
            heapq.heappop(self._sleeping)
        return self._sleeping[0][0] if self._sleeping else None

    def move_to(self, then: float) -> None:
        """Move the clock to the time ``then``, in seconds since the epoch, and wake the sleepers whose time has come."""
        self._now = max(self._now, then)
        while self._sleeping and self._sleeping[0][0] <= self._now:
            _, _, due = heapq.heappop(self._sleeping)
            if not due.done():
                due.set_result(None)


class _Used:
    """The clock in use."""

    def __init__(self) -> None:
        self.clock: Clock = SystemClock()


CLOCK = Part(_Used)
"""The clock of an application."""


def clock() -> Clock:
    """Return the clock of the running code."""
    return current()[CLOCK].clock


def use_clock(clock: Clock) -> None:
    """Use ``clock`` from now on."""
    current()[CLOCK].clock = clock
