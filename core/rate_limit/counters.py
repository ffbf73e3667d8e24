"""The counters of an application's rate limits, in memory or on a Redis server."""

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

    - ``windows``: the moving windows of the limit.
    - ``counted``: the ids of messages that were counted and may run again.
    - ``waiting``: the ids of messages that wait.
    - ``waits_until``: the time at which the last waiting message of each key may run, in seconds of the monotonic clock.
    """

    def __init__(self, windows: Windows) -> None:
        self.windows = windows
        self.counted: OrderedDict[str, None] = OrderedDict()
        self.waiting: OrderedDict[str, None] = OrderedDict()
        self.waits_until: OrderedDict[str, float] = OrderedDict()


class Counters:
    """The counts of all limits. ``redis`` is the server on which several processes count. None: they count in memory."""

    def __init__(self) -> None:
        self.redis: Redis | None = None
        self._counts: WeakKeyDictionary[Any, Counts] = WeakKeyDictionary()
        self._names: WeakValueDictionary[str, Any] = WeakValueDictionary()

    def of(self, limit: object, item: RateLimitItem) -> Counts:
        """Return what ``limit``, whose number and time are those of ``item``, has counted in memory."""
        counts = self._counts.get(limit)
        if counts is None:
            windows = Windows(item.amount, item.get_expiry(), clock().monotonic)
            counts = self._counts[limit] = Counts(windows)
        return counts

    def reserve_name(self, limit: object, wanted: str, *, given: bool) -> str:
        """Return the name under which ``limit`` is counted in Redis. No other limit gets the same name.

        - ``limit``: the limit.
        - ``wanted``: the name that it is to have.
        - ``given``: whether a user gave that name. Otherwise it was made.

        If another limit has the name, a made one gets a number, in the order in which the limits are named. So the name is
        the same in all processes of the same code. Raise RouteError if another limit has a given name.
        """
        name, number = wanted, 1
        while self._names.get(name, limit) is not limit:
            if given:
                raise RouteError(
                    f"RateLimit(name={wanted!r}): another limit has this name. Give each limit a name of its own"
                )
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
    """Count on the Redis server at ``url`` from now on. An empty ``url`` stands for memory.

    Raise StartError if the package for Redis is missing, or if ``url`` cannot be read.
    """
    counters().redis = Redis(url) if url else None


async def check() -> None:
    """Check that the Redis server counts, if there is one. Raise CounterUnreachableError if it does not."""
    redis = counters().redis
    if redis is not None:
        await redis.seconds_until_room(parse("1/second"), "doctor")


async def close() -> None:
    """Close the connections to the Redis server, if there is one. Count in memory from then on."""
    redis = counters().redis
    if redis is not None:
        await redis.close()
    configure("")


def start_anew() -> None:
    """Forget what was counted in memory."""
    counters().start_anew()
