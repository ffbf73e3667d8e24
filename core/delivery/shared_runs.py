"""Messages that run together, and those that have to run alone."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from core.handling.delivery import Delivery

Keyed = tuple["Hashable", "Delivery"]
"""A message with its ordering key."""


class SharedRuns(ABC):
    """Runs messages together, one run at a time, in order of receipt.

    A message that failed runs alone from then on. Later ones with its ordering key are held back behind it.

    - ``most``: how many messages a run takes at most.
    - ``ended``: is told of each message that has its end.
    """

    def __init__(self, most: int, ended: Callable[[Delivery], None]) -> None:
        self._most = most
        # Whoever brings a message in, its handler runs in the context of the application.
        self._context = copy_context()
        self._ended = ended
        self._waiting: deque[Keyed] = deque()
        self._held: dict[Hashable, deque[Delivery]] = {}
        self._task: asyncio.Task[None] | None = None
        self._alone: set[asyncio.Task[None]] = set()

    def put(self, key: Hashable, delivery: Delivery) -> None:
        """Put ``delivery`` before the next run. None is no key: such messages wait for nobody."""
        self._waiting.append((key, delivery))
        self._start()

    def _start(self) -> None:
        if self._waiting and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), context=self._context.copy())

    async def _run(self) -> None:
        try:
            while self._waiting:
                taken = self._take()
                if taken:
                    await self._attempt(taken)
        finally:
            self._task = None

    def _take(self) -> list[Keyed]:
        """Return the messages of the next run, in order. Those whose key waits for a failed message are queued behind it."""
        taken: list[Keyed] = []
        while self._waiting and len(taken) < self._most:
            key, delivery = self._waiting.popleft()
            if key in self._held:
                self._held[key].append(delivery)
            elif delivery.refused is not None:
                delivery.attempt += 1
                self._run_alone(key, delivery, delivery.refused)
            else:
                taken.append((key, delivery))
        return taken

    @abstractmethod
    async def _attempt(self, taken: list[Keyed]) -> None:
        """Bring all of ``taken`` to their end, or have them run alone."""

    @abstractmethod
    async def _deliver(self, delivery: Delivery, error: BaseException) -> None:
        """Bring ``delivery``, which failed with ``error``, to its end alone."""

    def _unheld(self, taken: list[Keyed]) -> list[Keyed]:
        """Return the messages that may run now. Those whose key waits for a failed message are queued behind it."""
        free = []
        for key, delivery in taken:
            if key in self._held:
                self._held[key].append(delivery)
            else:
                free.append((key, delivery))
        return free

    @staticmethod
    def _uncount(deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            delivery.attempt -= 1

    def _run_alone(self, key: Hashable, delivery: Delivery, error: BaseException) -> None:
        """Run ``delivery``, which failed with ``error``, alone by its route's retry policy. Its key waits for it."""
        if key is not None and key in self._held:
            # It runs again with the others, behind the one that waits.
            self._held[key].append(delivery)
            return
        if key is not None:
            self._held[key] = deque()
        task = asyncio.get_running_loop().create_task(self._finish(key, delivery, error), context=self._context.copy())
        self._alone.add(task)
        task.add_done_callback(self._alone.discard)

    async def _finish(self, key: Hashable, delivery: Delivery, error: BaseException) -> None:
        await self._deliver(delivery, error)
        self._ended(delivery)
        for behind in reversed(self._held.pop(key, ())):
            self._waiting.appendleft((key, behind))
        self._start()

    async def cut(self) -> None:
        """Cancel everything that runs or waits, and return when it has ended."""
        tasks = {task for task in (self._task, *self._alone) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
