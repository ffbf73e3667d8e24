"""A Redis server, on which the rate limits of several processes count together."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, TypeVar

from core.errors import CounterUnreachableError, StartError, mask, one_line

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from limits import RateLimitItem

T = TypeVar("T")

MAX_CONNECTIONS = 16
"""Connections to the Redis server."""
PATIENCE = 2.0
"""Seconds after which the Redis server counts as away. They are part of the time that a handler has."""


class Redis:
    """The moving windows of all limits, on the Redis server at ``url``. The first message connects to it.

    Raise StartError if the package for Redis is missing, or if ``url`` cannot be read.
    """

    def __init__(self, url: str) -> None:
        # The library takes a third of a second to import, for which applications that count in memory need not wait.
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
                max_connections=MAX_CONNECTIONS,
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
                connection_pool=self._pool,  # type: ignore[arg-type]  # the storage passes it to the client
            )
        except (ImportError, ConfigurationError):
            raise StartError(
                f"RATE_LIMIT_URL={self._address} needs the package redis, 5.2 or newer. Run pip install 'redis>=5.2'"
            ) from None
        except ValueError:
            # The text of the error may repeat a part of the password.
            raise StartError(
                f"RATE_LIMIT_URL={self._address} cannot be read. Write for instance redis://:password@host:6379/0"
            ) from None
        self._limiter = MovingWindowRateLimiter(storage)

    async def take(self, item: RateLimitItem, key: str) -> bool:
        """Count one message of ``key`` under the limit ``item``. Return whether there was room for it.

        Raise CounterUnreachableError if the server does not count.
        """
        return await self._answer(self._limiter.hit(item, key))

    async def seconds_until_room(self, item: RateLimitItem, key: str) -> float:
        """Return the seconds until the oldest message of ``key`` has left the window.

        Raise CounterUnreachableError if the server does not answer.
        """
        stats = await self._answer(self._limiter.get_window_stats(item, key))
        return max(stats.reset_time - time(), 0.0)

    async def _answer(self, question: Coroutine[Any, Any, T]) -> T:
        """Return the server's answer to ``question``. Raise CounterUnreachableError if there is none."""
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
