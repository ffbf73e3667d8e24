"""The command `publish`, and what commands that publish have in common."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING

from bootstrap.connections import publisher_for
from core.errors import BrokerUnreachableError, RouteMQError
from core.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from config.settings import Settings

MAX_WAIT = 10.0
"""Seconds that the broker may take to acknowledge a message."""
MAX_UNDER_WAY = 500
"""Messages that may wait for their acknowledgement at once."""


@asynccontextmanager
async def publishing(settings: Settings) -> AsyncIterator[Publisher]:
    """Yield a publisher that is connected to the broker of ``settings``, and disconnect it at the end."""
    # The session logs a lost connection.
    logging.basicConfig(level="WARNING", format="%(message)s")
    publisher = await publisher_for(settings, "cli")
    try:
        yield publisher
    finally:
        await publisher.stop()


async def publish_one(settings: Settings, topic: str, body: bytes, *, qos: int, retain: bool) -> int:
    """Publish one message. Return the exit code. Raise BrokerUnreachableError if no broker answers in time."""
    async with publishing(settings) as publisher:
        try:
            async with asyncio.timeout(MAX_WAIT):
                await publisher.publish(topic, body, qos=qos, retain=retain)
        except TimeoutError:
            raise BrokerUnreachableError(f"the message was not acknowledged within {MAX_WAIT:.0f} s") from None
    return 0


class Stream:
    """Many messages, published at a steady rate. A bounded number of them is under way at once."""

    def __init__(self, publisher: Publisher, qos: int, progress: Callable[[int], None]) -> None:
        self._publisher = publisher
        self._qos = qos
        self._progress = progress
        self._under_way: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(MAX_UNDER_WAY)
        self.sent = 0
        self.acknowledged = 0
        self.seconds = 0.0
        self.error: RouteMQError | None = None

    async def send(self, messages: Iterator[tuple[str, bytes]], rate: float | None) -> None:
        """Publish all ``messages``, ``rate`` of them a second. If ``rate`` is None, publish them as fast as possible.

        Raise RouteMQError if the broker refuses a message. No further ones are published then.
        """
        began = monotonic()
        try:
            for topic, body in messages:
                if rate is not None:
                    ahead = self.sent / rate - (monotonic() - began)
                    if ahead > 0.002:
                        await asyncio.sleep(ahead)
                await self._slots.acquire()
                if self.error is not None:
                    break
                self.sent += 1
                task = asyncio.create_task(self._publish(topic, body))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
        finally:
            if self._under_way:
                await asyncio.wait(self._under_way, timeout=MAX_WAIT)
            self.seconds = monotonic() - began
        if self.error is not None:
            raise self.error

    async def _publish(self, topic: str, body: bytes) -> None:
        try:
            await self._publisher.publish(topic, body, qos=self._qos)
            self.acknowledged += 1
            self._progress(1)
        except RouteMQError as error:
            self.error = error
        finally:
            self._slots.release()

    def __str__(self) -> str:
        rate = self.acknowledged / self.seconds if self.seconds else 0
        how = "acknowledged by the broker" if self._qos else "written"
        return f"{self.sent:,} sent, {self.acknowledged:,} {how} in {self.seconds:.1f} s: {rate:,.0f}/s"
