"""Routes with ``batch``: the messages that wait go to the handler as one list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.database.fault import AWAY, Fault, fault_of
from core.delivery.shared_runs import Keyed, SharedRuns
from core.delivery.verdict import Verdict
from core.errors import BatchError, HandlerTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from core.handling.delivery import Delivery
    from core.handling.dispatch import Dispatch
    from core.routing.registered import Route


class _Batch(SharedRuns):
    """The messages of one route with ``batch``."""

    async def _together(self, taken: list[Keyed]) -> Verdict:
        """Run the handler until it meets no fault of the infrastructure. Return what came of it."""
        deliveries = [delivery for _, delivery in taken]
        outage, first = self._dispatch.outage, deliveries[0]
        while True:
            if outage.active:
                await outage.over(first)
            for delivery in deliveries:
                delivery.attempt += 1
            refused, error = await self._dispatch.runner.run_many(deliveries)
            self._dispatch.check_cut(error)
            fault = Fault.MESSAGE if error is None else fault_of(error)
            if fault in AWAY and error is not None:
                if self._doubt.parts(first, error, len(deliveries)):
                    outage.leave(first)
                    return Verdict(committed=False, blamed=refused, failure=error)
                self._uncount(deliveries)
                await outage.sit_out(first, error)
            elif fault is not Fault.AGAIN or not await self._lost(deliveries):
                break
        if isinstance(error, HandlerTimeoutError):
            outage.leave(first)
        else:
            outage.answered(first)
        if error is None:
            return Verdict(committed=True, blamed=refused)
        return _verdict(deliveries, refused, error, fault)

    async def _deliver(self, delivery: Delivery, error: BaseException | None) -> None:
        await self._dispatch.deliver(delivery, error)


def _verdict(
    deliveries: Sequence[Delivery], refused: dict[int, BaseException], error: BaseException, fault: Fault
) -> Verdict:
    """Return what came of a run that raised ``error``. ``refused`` are those that the handler did not get."""
    # The places are those in the list that the handler got.
    left = [place for place in range(len(deliveries)) if place not in refused]
    if fault is Fault.SCHEMA:
        # It is the route's: each of them waits alone, until the route stands.
        return Verdict(committed=False, blamed=refused | dict.fromkeys(left, error))
    if not isinstance(error, BatchError):
        return Verdict(committed=False, blamed=refused, failure=error)
    blamed = {left[place]: reason for place, reason in error.errors.items() if 0 <= place < len(left)}
    if deliveries[0].undone or not blamed:
        # What the handler wrote for the others was undone too, or nobody knows whom it means. So they run again.
        return Verdict(committed=False, blamed=refused | blamed, failure=None if blamed else error)
    return Verdict(committed=True, blamed=refused | blamed)


class Batches:
    """The messages of all routes with ``batch``. One list of a route runs at a time, so that its messages keep their order.

    No list waits for a timer. A list takes what waits when the one before it is done, so that lists grow with the load.

    - ``dispatch``: brings messages to their end.
    - ``ended``: is told of each message that has its end.
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
        """Cancel everything that runs or waits. Return when it has ended."""
        for batch in self._routes.values():
            await batch.cut()
