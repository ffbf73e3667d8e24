"""What an application's rate limits have counted, and what they count on."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from core.errors import RouteError
from core.rate_limit.parse import parse
from core.rate_limit.redis import Redis
from core.rate_limit.windows import Windows
from core.runtime import Part, current
from core.runtime.clock import clock

if TYPE_CHECKING:
    from limits import RateLimitItem


class Counts:
    """What one limit has counted in memory.

    - ``windows``: its moving windows.
    - ``counted``: the messages that were counted and may run again.
    - ``waiting``: the messages that were told to wait.
    - ``line``: by key, until when the last message that waits does so.
    """

    def __init__(self, windows: Windows) -> None:
        self.windows = windows
        self.counted: OrderedDict[str, None] = OrderedDict()
        self.waiting: OrderedDict[str, None] = OrderedDict()
        self.line: OrderedDict[str, float] = OrderedDict()


class Counters:
    """The counts of all limits; ``redis`` is the server that several processes count on, None for memory."""

    def __init__(self) -> None:
        self.redis: Redis | None = None
        self._counts: WeakKeyDictionary[Any, Counts] = WeakKeyDictionary()
        self._names: WeakValueDictionary[str, Any] = WeakValueDictionary()

    def of(self, limit: object, item: RateLimitItem) -> Counts:
        """Return what ``limit``, which says ``item``, has counted in memory."""
        counts = self._counts.get(limit)
        if counts is None:
            windows = Windows(item.amount, item.get_expiry(), clock().monotonic)
            counts = self._counts[limit] = Counts(windows)
        return counts

    def name(self, limit: object, wanted: str, *, given: bool) -> str:
        """Return the name under which ``limit`` is counted in Redis.

        A name that was ``given`` and is taken raises RouteError. A name that was made gets a number, in the order in which
        the limits are made: it is the same in all processes of the same code.
        """
        name, number = wanted, 1
        while self._names.get(name, limit) is not limit:
            if given:
                raise RouteError(f"RateLimit(name={wanted!r}): another limit has this name; give each one of its own")
            number += 1
            name = f"{wanted} {number}"
        self._names[name] = limit
        return name

    def start_anew(self) -> None:
        """Forget what was counted in memory."""
        self._counts.clear()


COUNTERS = Part(Counters)
"""The counters of an application."""


def counters() -> Counters:
    """Return the counters of the running code."""
    return current()[COUNTERS]


def configure(url: str) -> None:
    """Count on the Redis server at ``url`` from now on, or in memory if it is empty. Raise StartError."""
    counters().redis = Redis(url) if url else None


async def check() -> None:
    """Ask the Redis server whether it counts, if there is one. Raise CounterUnreachableError."""
    redis = counters().redis
    if redis is not None:
        await redis.seconds_until_room(parse("1/second"), "doctor")


async def close() -> None:
    """Let go of the Redis server, if there is one."""
    redis = counters().redis
    if redis is not None:
        await redis.close()
    configure("")


def start_anew() -> None:
    """Forget what was counted in memory."""
    counters().start_anew()
