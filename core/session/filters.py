"""Topic filters that come and go while a session stands."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from core.errors import BrokerRefusedError, ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.session.session import Session
    from core.transport.connection import Subscription


class Filters:
    """The topic filters of a session that begins anew with each connection.

    One task makes what the broker has equal to what is wanted, one step after the other. What changes while it waits for
    the broker goes out together, and a filter that is removed and added again cannot overtake itself.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._wanted: dict[str, Subscription] = {}
        self._had: set[str] = set()
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def settled(self) -> bool:
        """Whether the broker has what is wanted and nothing else, and no caller of ``add`` waits for it."""
        return self._had == self._wanted.keys() and not self._waiting

    async def add(self, subscription: Subscription) -> None:
        """Subscribe, now and on each later connection, and return when the broker has the topic filter.

        Raise BrokerRefusedError where the broker does not take it.
        """
        name = subscription.topic_filter
        self._wanted[name] = subscription
        if name in self._had:
            return
        waiting = self._waiting.get(name)
        if waiting is None:
            waiting = self._waiting[name] = asyncio.get_running_loop().create_future()
        self._stir()
        await asyncio.shield(waiting)

    def remove(self, topic_filter: str) -> None:
        """Unsubscribe as soon as it can be done."""
        self._wanted.pop(topic_filter, None)
        waiting = self._waiting.pop(topic_filter, None)
        if waiting is not None:
            waiting.cancel()
        self._stir()

    def connected(self) -> None:
        """Record a new connection, on which the broker has none of the topic filters."""
        self._had.clear()
        self._stir()

    @property
    def had(self) -> frozenset[str]:
        """The filters that the broker has."""
        return frozenset(self._had)

    async def stop(self) -> None:
        """Stop. The end of the session takes the topic filters away."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _stir(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._settle(), name="topic filters")

    async def _settle(self) -> None:
        while True:
            gone = [name for name in self._had if name not in self._wanted]
            new = [subscription for name, subscription in self._wanted.items() if name not in self._had]
            if not gone and not new:
                return
            try:
                if gone:
                    self._had.difference_update(gone)
                    await self._session.unsubscribe(gone)
                if new:
                    await self._subscribe(new)
            except ConnectionLostError:
                # The end of a connection is heard of before the session notices. Wait for the next connection.
                await asyncio.sleep(0.01)

    async def _subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """Subscribe to all at once, or one by one where the broker refuses some."""
        try:
            await self._session.subscribe(subscriptions)
        except BrokerRefusedError as error:
            if len(subscriptions) > 1:
                for subscription in subscriptions:
                    await self._subscribe([subscription])
                return
            name = subscriptions[0].topic_filter
            self._wanted.pop(name, None)
            waiting = self._waiting.pop(name, None)
            if waiting is not None:
                waiting.set_exception(error)
                # Those who still wait for it see the error. All of them may have left.
                waiting.exception()
            return
        for subscription in subscriptions:
            self._had.add(subscription.topic_filter)
            waiting = self._waiting.pop(subscription.topic_filter, None)
            if waiting is not None:
                waiting.set_result(None)
