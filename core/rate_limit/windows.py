"""The moving windows in which rate limits count, in the memory of this process.

There is room for a message if fewer messages than the limit came within the time before it.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


log = logging.getLogger("routemq.rate_limit")

MAX_KEYS = 100_000
"""Keys that one limit keeps in memory."""
MAX_STAMPS = 1_000_000
"""Times of messages that one limit keeps in memory, over all its keys."""


class _Ring:
    """The times of the latest messages of one key, in a ring buffer. Times are in seconds of the monotonic clock.

    - ``stamps``: the times. A new time takes the place of the oldest one if the list is full.
    - ``oldest``: the index of the oldest time.
    - ``last``: the latest time.
    """

    __slots__ = ("last", "oldest", "stamps")

    def __init__(self) -> None:
        self.stamps: list[float] = []
        self.oldest = 0
        self.last = 0.0


class Windows:
    """The moving windows of one limit in memory, one for each key.

    - ``amount``: the number of messages of a key that have room in a window.
    - ``seconds``: the length of a window.
    - ``clock``: returns the seconds of the monotonic clock.

    In the library's own storage in memory, every message starts a task that looks through all keys, each in a thread: 1.5 s
    of work at 10,000 keys. Here a message costs the same at any number of keys, and forgets a few idle keys.
    """

    def __init__(self, amount: int, seconds: float, clock: Callable[[], float]) -> None:
        self._amount = amount
        self._seconds = seconds
        self._clock = clock
        # The rings are in the order of their last messages, so that the first ones are forgotten first.
        self._rings: OrderedDict[str, _Ring] = OrderedDict()
        self._stamps = 0
        self._warned = False

    def __len__(self) -> int:
        """Return the number of keys that are kept."""
        return len(self._rings)

    def take(self, key: str) -> float:
        """Count one message of ``key`` and return 0. If there is no room for it, return the seconds until there is."""
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
        """Forget two of the keys without a message since ``before``, and more if too many keys or times are kept."""
        rings = self._rings
        for _ in range(2):
            if not rings or next(iter(rings.values())).last > before:
                break
            self._drop()
        while len(self) >= MAX_KEYS or (self._stamps >= MAX_STAMPS and len(rings) > 1):
            if not self._warned:
                self._warned = True
                log.warning(
                    "a rate limit has more keys or messages than it keeps (%s keys, %s messages). It forgets the counts of "
                    "the keys that had no message for the longest time. Give it a key with fewer values, or a shorter time",
                    f"{MAX_KEYS:,}",
                    f"{MAX_STAMPS:,}",
                )
            self._drop()

    def _drop(self) -> None:
        _, ring = self._rings.popitem(last=False)
        self._stamps -= len(ring.stamps)
