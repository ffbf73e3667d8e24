"""Messages with the same ordering key run one after the other. Different keys run side by side."""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

    from core.handling.delivery import Delivery


class Lanes:
    """A task for each ordering key that has messages.

    The task of a key ends with its last message, so that there are never more tasks than messages in hand.

    ``deliver`` brings one message to its end. It must not raise.
    """

    def __init__(self, deliver: Callable[[Delivery], Coroutine[None, None, None]]) -> None:
        self._deliver = deliver
        # Handlers run in the context of the application, whoever brings in their message.
        self._context = copy_context()
        self._waiting: dict[Hashable, deque[Delivery]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, key: Hashable, delivery: Delivery) -> None:
        """Put ``delivery`` behind the earlier messages with ``key``. With None for a key, run it at once."""
        if key is not None:
            waiting = self._waiting.get(key)
            if waiting is not None:
                waiting.append(delivery)
                return
            self._waiting[key] = waiting = deque((delivery,))
            run = self._run(key, waiting)
        else:
            run = self._deliver(delivery)
        task = asyncio.get_running_loop().create_task(run, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, key: Hashable, waiting: deque[Delivery]) -> None:
        try:
            while waiting:
                delivery = waiting[0]
                delivery.behind = waiting
                await self._deliver(delivery)
                waiting.popleft()
        finally:
            del self._waiting[key]

    async def cut(self) -> None:
        """Cancel everything that runs or waits. Return when it has ended."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
