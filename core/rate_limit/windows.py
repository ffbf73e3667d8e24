"""The moving windows that rate limits count in, in the memory of this process.

A message is let through if fewer than the limit were within the time before it.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


log = logging.getLogger("routemq.rate_limit")

MAX_KEYS = 100_000
"""Keys of one limit that are kept in memory."""
MAX_STAMPS = 1_000_000
"""Messages of one limit that are kept in memory, as their times, over all its keys."""


class _Ring:
    """The times of the latest messages of one key, in a list that is written round and round."""

    __slots__ = ("last", "oldest", "stamps")

    def __init__(self) -> None:
        self.stamps: list[float] = []
        self.oldest = 0
        self.last = 0.0


class Windows:
    """The moving windows of one limit in memory: ``amount`` messages in ``seconds``, for each key.

    The library's own storage in memory starts a task with every hit that looks through all keys, each by a thread: 1.5 s
    of work at 10,000 keys. Here a hit costs the same at any number of keys, and idle ones are forgotten on the way.
    """

    def __init__(self, amount: int, seconds: float, clock: Callable[[], float]) -> None:
        self._amount = amount
        self._seconds = seconds
        self._clock = clock
        # In order of the last message, so that those to be forgotten come first.
        self._rings: OrderedDict[str, _Ring] = OrderedDict()
        self._stamps = 0
        self._told = False

    def __len__(self) -> int:
        return len(self._rings)

    def take(self, key: str) -> float:
        """Count one message of ``key`` and give 0; or count nothing and give the seconds until there is room."""
        now = self._clock()
        self._forget(now - self._seconds)
        ring = self._rings.get(key)
        if ring is None:
            ring = self._rings[key] = _Ring()
        stamps = ring.stamps
        if len(stamps) < self._amount:
            stamps.append(now)
            self._stamps += 1
        else:
            room_at = stamps[ring.oldest] + self._seconds
            if room_at > now:
                return room_at - now
            stamps[ring.oldest] = now
            ring.oldest = (ring.oldest + 1) % self._amount
        ring.last = now
        self._rings.move_to_end(key)
        return 0.0

    def _forget(self, before: float) -> None:
        """Forget a few of the keys without a message since ``before``, and more where there are too many."""
        rings = self._rings
        for _ in range(2):
            if not rings or next(iter(rings.values())).last > before:
                break
            self._drop()
        while len(rings) >= MAX_KEYS or (self._stamps >= MAX_STAMPS and len(rings) > 1):
            if not self._told:
                self._told = True
                log.warning("a rate limit has more keys than are kept; of those that were silent longest, counts are lost")
            self._drop()

    def _drop(self) -> None:
        _, ring = self._rings.popitem(last=False)
        self._stamps -= len(ring.stamps)
