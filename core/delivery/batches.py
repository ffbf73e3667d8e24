"""Routes that take many messages at once: what waits goes to the handler as one list."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from core.database.fault import Fault, fault_of
from core.delivery.outcome import MOST_AGAIN
from core.errors import BatchError, HandlerTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from core.delivery.delivery import Delivery
    from core.delivery.dispatch import Dispatch
    from core.route import Route


class _Line:
    """The messages of one route: those that wait for the next list, and those held back behind one that failed."""

    def __init__(self, most: int, dispatch: Dispatch, ended: Callable[[Delivery], None]) -> None:
        self._most = most
        self._dispatch = dispatch
        self._ended = ended
        self._waiting: deque[tuple[Hashable, Delivery]] = deque()
        self._held: dict[Hashable, deque[Delivery]] = {}
        self._task: asyncio.Task[None] | None = None
        self._alone: set[asyncio.Task[None]] = set()

    def put(self, key: Hashable, delivery: Delivery) -> None:
        self._waiting.append((key, delivery))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = self._take()
                if batch:
                    await self._attempt(batch)
        finally:
            self._task = None

    def _take(self) -> list[tuple[Hashable, Delivery]]:
        """Take what waits, in order; what has the key of a message that waits for its retry goes behind that."""
        batch: list[tuple[Hashable, Delivery]] = []
        while self._waiting and len(batch) < self._most:
            key, delivery = self._waiting.popleft()
            if key in self._held:
                self._held[key].append(delivery)
            elif delivery.refused is not None:
                delivery.attempt += 1
                self._put_apart(key, delivery, delivery.refused)
            else:
                batch.append((key, delivery))
        return batch

    async def _attempt(self, batch: list[tuple[Hashable, Delivery]]) -> None:
        """Bring ``batch`` to its end, but for those that have to run alone from now on."""
        refused, error = await self._answered([delivery for _, delivery in batch])
        left = [pair for index, pair in enumerate(batch) if index not in refused]
        for index, reason in refused.items():
            self._put_apart(*batch[index], reason)
        if error is None or isinstance(error, BatchError):
            # The places are those in the list that the handler got.
            blamed = error.errors if error is not None else {}
            for index, (key, delivery) in enumerate(left):
                if index in blamed:
                    self._put_apart(key, delivery, blamed[index])
                else:
                    self._dispatch.done(delivery)
                    self._ended(delivery)
        elif len(left) == 1:
            self._put_apart(*left[0], error)
        elif left:
            self._not_counted([delivery for _, delivery in left])
            middle = len(left) // 2
            await self._attempt(left[:middle])
            await self._attempt_unheld(left[middle:])

    async def _answered(self, deliveries: list[Delivery]) -> tuple[dict[int, BaseException], BaseException | None]:
        """Run the handler until it meets no fault of the infrastructure; give what ``Runs.run_many`` gives."""
        outage, first = self._dispatch.outage, deliveries[0]
        while True:
            if outage.active:
                await outage.over(first)
            for delivery in deliveries:
                delivery.attempt += 1
            refused, error = await self._dispatch.runs.run_many(deliveries)
            fault = Fault.MESSAGE if error is None else fault_of(error)
            if fault in {Fault.INFRASTRUCTURE, Fault.SETUP} and error is not None:
                self._not_counted(deliveries)
                await outage.sit_out(first, error)
            elif fault is Fault.AGAIN and first.again < MOST_AGAIN:
                self._not_counted(deliveries)
                first.again += 1
                await asyncio.sleep(min(0.001 * 2**first.again, 1.0))
            else:
                break
        if isinstance(error, HandlerTimeoutError):
            outage.leave(first)
        else:
            outage.answered(first)
        return refused, error

    async def _attempt_unheld(self, batch: list[tuple[Hashable, Delivery]]) -> None:
        """Attempt those whose key is not held back since their first half ran."""
        free = []
        for key, delivery in batch:
            if key in self._held:
                self._held[key].append(delivery)
            else:
                free.append((key, delivery))
        if free:
            await self._attempt(free)

    @staticmethod
    def _not_counted(deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            delivery.attempt -= 1

    def _put_apart(self, key: Hashable, delivery: Delivery, error: BaseException) -> None:
        """Have ``delivery``, which failed with ``error``, follow its route's retry policy alone; its key waits for it."""
        if key is not None and key in self._held:
            # It runs again with the next list, behind the one that waits.
            self._held[key].append(delivery)
            return
        if key is not None:
            self._held[key] = deque()
        task = asyncio.get_running_loop().create_task(self._finish(key, delivery, error))
        self._alone.add(task)
        task.add_done_callback(self._alone.discard)

    async def _finish(self, key: Hashable, delivery: Delivery, error: BaseException) -> None:
        await self._dispatch.deliver(delivery, error)
        self._ended(delivery)
        for behind in reversed(self._held.pop(key, ())):
            self._waiting.appendleft((key, behind))
        if self._waiting and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def cut(self) -> None:
        tasks = {task for task in (self._task, *self._alone) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class Batches:
    """One line for each route with ``batch``; one list of a route runs at a time, so that its messages keep their order.

    No list waits for a timer: it has what waits when the one before is done, so lists grow with the load. ``ended`` is
    told of each message that has its end.
    """

    def __init__(self, dispatch: Dispatch, ended: Callable[[Delivery], None]) -> None:
        self._dispatch = dispatch
        self._ended = ended
        self._lines: dict[str, _Line] = {}

    def put(self, route: Route, key: Hashable, delivery: Delivery) -> None:
        """Put ``delivery`` into the next list of ``route``."""
        line = self._lines.get(route.name)
        if line is None:
            line = self._lines[route.name] = _Line(route.options.batch or 1, self._dispatch, self._ended)
        line.put(key, delivery)

    async def cut(self) -> None:
        """Cancel everything that runs or waits, and return when it has ended."""
        for line in self._lines.values():
            await line.cut()
