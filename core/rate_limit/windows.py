"""What rate limits count in: the memory of this process, or a Redis server for several processes together.

Both keep a moving window: a message is let through if fewer than the limit were within the time before it.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from time import time
from typing import TYPE_CHECKING, TypeVar

from core.errors import CounterUnreachableError, StartError, one_line
from core.transport.options import mask

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from limits import RateLimitItem

T = TypeVar("T")

log = logging.getLogger("routemq.rate_limit")

MOST_KEYS = 100_000
"""Keys of one limit that are kept in memory."""
MOST_STAMPS = 1_000_000
"""Messages of one limit that are kept in memory, as their times, over all its keys."""
MOST_AT_ONCE = 16
"""Connections to Redis."""
PATIENCE = 2.0
"""Seconds after which Redis is held to be away: well within the time that handlers have, as it is part of it."""


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
        while len(rings) >= MOST_KEYS or (self._stamps >= MOST_STAMPS and len(rings) > 1):
            if not self._told:
                self._told = True
                log.warning("a rate limit has more keys than are kept; of those that were silent longest, counts are lost")
            self._drop()

    def _drop(self) -> None:
        _, ring = self._rings.popitem(last=False)
        self._stamps -= len(ring.stamps)


class Redis:
    """The moving windows of all limits on the Redis server at ``url``, which is connected to by the first message.

    Raises StartError where the package is missing or the URL cannot be read.
    """

    def __init__(self, url: str) -> None:
        # Only here: most applications count in memory, and the library takes a third of a second to import.
        from limits.aio.storage import RedisStorage  # noqa: PLC0415
        from limits.aio.strategies import MovingWindowRateLimiter  # noqa: PLC0415
        from limits.errors import ConfigurationError, StorageError  # noqa: PLC0415

        self._address = mask(url)
        self._away = StorageError
        try:
            from redis.asyncio import BlockingConnectionPool  # noqa: PLC0415
            from redis.asyncio.retry import Retry  # noqa: PLC0415
            from redis.backoff import NoBackoff  # noqa: PLC0415

            self._pool = BlockingConnectionPool.from_url(
                url,
                max_connections=MOST_AT_ONCE,
                timeout=PATIENCE,
                socket_timeout=PATIENCE,
                socket_connect_timeout=PATIENCE,
                retry=Retry(NoBackoff(), 0),
            )
            storage = RedisStorage(
                "async+redis://",
                wrap_exceptions=True,
                implementation="redispy",
                key_prefix="routemq",
                connection_pool=self._pool,  # type: ignore[arg-type]  # handed on to the client as it is
            )
        except (ImportError, ConfigurationError):
            raise StartError(
                f"RATE_LIMIT_URL={self._address} needs the package redis, 5.2 or newer; pip install 'redis>=5.2'"
            ) from None
        except ValueError:
            # What is said of the URL may repeat a part of the password.
            raise StartError(
                f"RATE_LIMIT_URL={self._address} cannot be read; write for instance redis://:password@host:6379/0"
            ) from None
        self._limiter = MovingWindowRateLimiter(storage)

    async def take(self, item: RateLimitItem, key: str) -> bool:
        """Count one message of ``key`` under the limit ``item``, or say that there is no room for it.

        Raises CounterUnreachableError.
        """
        return await self._asked(self._limiter.hit(item, key))

    async def seconds_until_room(self, item: RateLimitItem, key: str) -> float:
        """Give the seconds until the oldest message of ``key`` is outside of the window. Raises CounterUnreachableError."""
        stats = await self._asked(self._limiter.get_window_stats(item, key))
        return max(stats.reset_time - time(), 0.0)

    async def _asked(self, question: Coroutine[Any, Any, T]) -> T:
        try:
            return await question
        except self._away as error:
            cause = getattr(error, "storage_error", error)
            raise CounterUnreachableError(
                f"the Redis server for rate limits at {self._address} does not count: {one_line(cause)}"
            ) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.disconnect()
