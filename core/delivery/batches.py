"""Routes that take many messages at once: what waits goes to the handler as one list."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from core.database.fault import Fault, fault_of
from core.delivery.shared_runs import Keyed, SharedRuns
from core.errors import BatchError, HandlerTimeoutError
from core.handling.outcome import again_after

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from core.handling.delivery import Delivery
    from core.handling.dispatch import Dispatch
    from core.routing.registered import Route


class _Batch(SharedRuns):
    """The messages of one route with ``batch``."""

    def __init__(self, most: int, dispatch: Dispatch, ended: Callable[[Delivery], None]) -> None:
        super().__init__(most, ended)
        self._dispatch = dispatch

    async def _attempt(self, taken: list[Keyed]) -> None:
        """Bring ``taken`` to their end, except for those that have to run alone from now on."""
        if not taken:
            return
        refused, error = await self._answered([delivery for _, delivery in taken])
        left = [pair for index, pair in enumerate(taken) if index not in refused]
        for index, reason in refused.items():
            self._run_alone(*taken[index], reason)
        if error is None or isinstance(error, BatchError):
            # The places are those in the list that the handler got.
            blamed = error.errors if error is not None else {}
            for index, (key, delivery) in enumerate(left):
                if index in blamed:
                    self._run_alone(key, delivery, blamed[index])
                else:
                    self._dispatch.done(delivery)
                    self._ended(delivery)
        elif len(left) == 1:
            self._run_alone(*left[0], error)
        elif left:
            self._uncount([delivery for _, delivery in left])
            middle = len(left) // 2
            await self._attempt(left[:middle])
            await self._attempt(self._unheld(left[middle:]))

    async def _answered(self, deliveries: list[Delivery]) -> tuple[dict[int, BaseException], BaseException | None]:
        """Run the handler until it meets no fault of the infrastructure. Return what ``Runner.run_many`` returns."""
        outage, first = self._dispatch.outage, deliveries[0]
        while True:
            if outage.active:
                await outage.over(first)
            for delivery in deliveries:
                delivery.attempt += 1
            refused, error = await self._dispatch.runner.run_many(deliveries)
            fault = Fault.MESSAGE if error is None else fault_of(error)
            if fault in {Fault.INFRASTRUCTURE, Fault.SETUP} and error is not None:
                self._uncount(deliveries)
                await outage.sit_out(first, error)
            elif fault is Fault.AGAIN and (seconds := again_after(first.again)) is not None:
                self._uncount(deliveries)
                first.again += 1
                await asyncio.sleep(seconds)
            else:
                break
        if isinstance(error, HandlerTimeoutError):
            outage.leave(first)
        else:
            outage.answered(first)
        return refused, error

    async def _deliver(self, delivery: Delivery, error: BaseException) -> None:
        await self._dispatch.deliver(delivery, error)


class Batches:
    """The messages of each route with ``batch``. One list of a route runs at a time, so that its messages keep their order.

    No list waits for a timer. It has what waits when the one before is done, so that lists grow with the load. ``ended`` is
    told of each message that has its end.
    """

    def __init__(self, dispatch: Dispatch, ended: Callable[[Delivery], None]) -> None:
        self._dispatch = dispatch
        self._ended = ended
        self._routes: dict[str, _Batch] = {}

    def put(self, route: Route, key: Hashable, delivery: Delivery) -> None:
        """Put ``delivery`` into the next list of ``route``."""
        batch = self._routes.get(route.name)
        if batch is None:
            batch = self._routes[route.name] = _Batch(route.options.batch or 1, self._dispatch, self._ended)
        batch.put(key, delivery)

    async def cut(self) -> None:
        """Cancel everything that runs or waits, and return when it has ended."""
        for batch in self._routes.values():
            await batch.cut()
