"""Messages that are run together, and those that have to run alone: a line of what waits for the next run."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from core.handling.delivery import Delivery

Keyed = tuple["Hashable", "Delivery"]
"""A message with its ordering key."""


class Line(ABC):
    """What waits for the next run, and what is held back behind a message that failed and runs alone.

    One run at a time takes what waits, at most ``most``. ``ended`` is told of each message that has its end.
    """

    def __init__(self, most: int, ended: Callable[[Delivery], None]) -> None:
        self._most = most
        self._ended = ended
        self._waiting: deque[Keyed] = deque()
        self._held: dict[Hashable, deque[Delivery]] = {}
        self._task: asyncio.Task[None] | None = None
        self._alone: set[asyncio.Task[None]] = set()

    def put(self, key: Hashable, delivery: Delivery) -> None:
        """Have ``delivery`` wait for the next run; None is no key, such messages wait for nobody."""
        self._waiting.append((key, delivery))
        self._start()

    def _start(self) -> None:
        if self._waiting and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._waiting:
                taken = self._take()
                if taken:
                    await self._attempt(taken)
        finally:
            self._task = None

    def _take(self) -> list[Keyed]:
        """Take what waits, in order; what has the key of a message that runs alone goes behind that."""
        taken: list[Keyed] = []
        while self._waiting and len(taken) < self._most:
            key, delivery = self._waiting.popleft()
            if key in self._held:
                self._held[key].append(delivery)
            elif delivery.refused is not None:
                delivery.attempt += 1
                self._put_apart(key, delivery, delivery.refused)
            else:
                taken.append((key, delivery))
        return taken

    @abstractmethod
    async def _attempt(self, taken: list[Keyed]) -> None:
        """Bring all of ``taken`` to their end, or put them apart."""

    @abstractmethod
    async def _deliver(self, delivery: Delivery, error: BaseException) -> None:
        """Bring ``delivery``, which failed with ``error``, to its end alone."""

    def _unheld(self, taken: list[Keyed]) -> list[Keyed]:
        """Give those whose key is not held back by now; the others go behind what holds them."""
        free = []
        for key, delivery in taken:
            if key in self._held:
                self._held[key].append(delivery)
            else:
                free.append((key, delivery))
        return free

    @staticmethod
    def _not_counted(deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            delivery.attempt -= 1

    def _put_apart(self, key: Hashable, delivery: Delivery, error: BaseException) -> None:
        """Have ``delivery``, which failed with ``error``, follow its route's retry policy alone; its key waits for it."""
        if key is not None and key in self._held:
            # It runs again with the others, behind the one that waits.
            self._held[key].append(delivery)
            return
        if key is not None:
            self._held[key] = deque()
        task = asyncio.get_running_loop().create_task(self._finish(key, delivery, error))
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
