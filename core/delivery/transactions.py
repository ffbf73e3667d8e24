"""Routes with delivery="exactly_once": what waits is handled within one transaction, which also records the packets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import InvalidRequestError

from core.database import transaction
from core.database.fault import Fault, fault_of
from core.database.unit_of_work import UnitOfWork
from core.delivery.shared_runs import Keyed, SharedRuns
from core.errors import BatchError, HandlerTimeoutError, MessageError
from core.handling.outcome import again_after
from core.handling.replies import error_reply_to
from core.records.dedup import Trim
from core.records.outbox import Collected

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

    from core.handling.delivery import Delivery
    from core.handling.dispatch import Dispatch
    from core.records.outbox import Outbox
    from core.records.packets import Packets

MAX_MESSAGES = 500
"""Messages in one transaction."""
IN_FAILED_TRANSACTION = "25P02"


class _RolledBackError(Exception):
    """Leaves the transaction, so that it rolls back."""


class _UnblamedError(Exception):
    """A list's handler raised, and did not say which message is to blame."""


class ExactlyOnce:
    """What exactly-once routes need.

    - ``begin``: opens a transaction.
    - ``packets``: the record of the packets that were committed.
    - ``outbox``: keeps what handlers publish until the commit.
    - ``client_id``: the client identifier of the session.
    - ``keep``: how long application keys (``dedup``) are kept, in seconds.
    """

    def __init__(
        self,
        begin: Callable[[], AbstractAsyncContextManager[AsyncSession]],
        packets: Packets,
        outbox: Outbox,
        client_id: str,
        keep: float,
    ) -> None:
        self.trim = Trim(keep)
        self.begin = begin
        self.packets = packets
        self.outbox = outbox
        self.client_id = client_id


class Transactions(SharedRuns):
    """The messages of all exactly-once routes: one transaction at a time handles all that wait.

    Handlers run side by side within it, those of one ordering key one after the other. PUBACKs leave after the commit. If
    a handler fails, everything is rolled back; the guilty message follows its route's policy alone, and the others run
    again. A commit whose answer was lost with the connection is looked up by its record before anything runs again.
    """

    def __init__(self, mode: ExactlyOnce, dispatch: Dispatch, ended: Callable[[Delivery], None]) -> None:
        super().__init__(MAX_MESSAGES, ended)
        self._mode = mode
        self._dispatch = dispatch

    async def _attempt(self, taken: list[Keyed]) -> None:
        # Those that failed, by their place, with their errors; and those behind them with the same key, without one.
        apart: dict[int, BaseException | None] = {}
        left = list(range(len(taken)))
        while left:
            errors, failure = await self._answered([taken[place] for place in left])
            if not errors and failure is None:
                for place in left:
                    self._dispatch.done(taken[place][1])
                    self._ended(taken[place][1])
                break
            guilty: dict[int, BaseException | None] = {
                left[index]: error for index, error in errors.items() if not _follows_from_another(error)
            }
            if not guilty and len(left) == 1:
                guilty = {left[0]: failure or errors[0]}
            if not guilty:
                # Something failed at the commit, and nobody knows whose fault it is.
                self._uncount([taken[place][1] for place in left])
                middle = len(left) // 2
                await self._attempt([taken[place] for place in left[:middle]])
                left = self._unheld_places(taken, left[middle:])
                continue
            rest = [place for place in left if place not in guilty]
            self._uncount([taken[place][1] for place in rest])
            left, behind = _sorted_out(taken, rest, guilty)
            apart |= guilty | dict.fromkeys(behind)
        # Only now, behind the earlier ones of their keys, which ran again meanwhile.
        for place in sorted(apart):
            key, delivery = taken[place]
            error = apart[place]
            if error is not None:
                self._run_alone(key, delivery, error)
            elif key in self._held:
                self._held[key].append(delivery)
            else:
                self._waiting.append((key, delivery))

    def _unheld_places(self, taken: list[Keyed], places: list[int]) -> list[int]:
        """Give those of ``places`` whose key is not held back by now; the others go behind what holds them."""
        free = []
        for place in places:
            key, delivery = taken[place]
            if key in self._held:
                self._held[key].append(delivery)
            else:
                free.append(place)
        return free

    async def _answered(self, taken: list[Keyed]) -> tuple[dict[int, BaseException], BaseException | None]:
        """Run the transaction until it meets no fault of the infrastructure.

        Gives what handlers raised, by their place, or else what kept the transaction from being committed.
        """
        outage, first = self._dispatch.outage, taken[0][1]
        deliveries = [delivery for _, delivery in taken]
        while True:
            if outage.active:
                await outage.over(first)
            for delivery in deliveries:
                delivery.attempt += 1
            errors, failure = await self._transaction(taken)
            if any(isinstance(error, HandlerTimeoutError | MessageError) for error in errors.values()):
                # Cutting a handler off may cost the connection, and then the others their transaction.
                outage.leave(first)
                return {i: e for i, e in errors.items() if isinstance(e, HandlerTimeoutError | MessageError)}, None
            raised = [*errors.values(), *([failure] if failure is not None else [])]
            faults = {fault_of(error) for error in raised if not _follows_from_another(error)}
            if Fault.MESSAGE not in faults and faults & {Fault.INFRASTRUCTURE, Fault.SETUP}:
                self._uncount(deliveries)
                await outage.sit_out(first, next(e for e in raised if fault_of(e) in {Fault.INFRASTRUCTURE, Fault.SETUP}))
            elif Fault.MESSAGE not in faults and Fault.AGAIN in faults and (seconds := again_after(first.again)) is not None:
                self._uncount(deliveries)
                first.again += 1
                await asyncio.sleep(seconds)
            else:
                outage.answered(first)
                return {i: e for i, e in errors.items() if fault_of(e) is Fault.MESSAGE}, failure

    async def _transaction(
        self, taken: list[Keyed], *, savepoints: bool = False
    ) -> tuple[dict[int, BaseException], BaseException | None]:
        """Handle ``taken`` in one transaction; give what handlers raised, and what kept it from being committed.

        The first run does without savepoints; only if a statement fails does a second one take them.
        """
        unit: UnitOfWork | None = None
        mode, first = self._mode, taken[0][1]
        errors: dict[int, BaseException] = {}
        record = None
        collected = Collected(mode.client_id)
        try:
            if first.record is not None:
                # The answer to an earlier commit was lost.
                if await mode.packets.has(first.record):
                    self._committed(first)
                    return {}, None
                first.record = None
            async with mode.begin() as session:
                unit = UnitOfWork(session, savepoints=savepoints)
                errors = await self._handle(unit, taken, collected)
                await unit.end()
                if errors or unit.spoilt:
                    raise _RolledBackError  # noqa: TRY301 - out of the transaction
                await collected.store(session)
                await mode.trim.trim(session)
                record = await mode.packets.record(session, (delivery.message for _, delivery in taken))
        except _RolledBackError:
            if unit is not None and unit.spoilt and not savepoints:
                return await self._transaction(taken, savepoints=True)
            return errors, None
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is known to be committed
            if record is not None and fault_of(error) is Fault.INFRASTRUCTURE:
                first.record = record
            elif unit is not None and unit.spoilt and not savepoints and fault_of(error) is Fault.MESSAGE:
                return await self._transaction(taken, savepoints=True)
            return errors, None if errors else error
        first.record = record
        self._committed(first, published=bool(collected.rows))
        return {}, None

    def _committed(self, first: Delivery, *, published: bool = True) -> None:
        if first.record is not None:
            self._mode.packets.committed(first.record)
            first.record = None
        if published:
            self._mode.outbox.kick()

    async def _handle(self, unit: UnitOfWork, taken: list[Keyed], collected: Collected) -> dict[int, BaseException]:
        errors: dict[int, BaseException] = {}
        runner = self._dispatch.runner

        async def in_order(indexes: list[int]) -> None:
            for index in indexes:
                async with transaction.PartOf(unit):
                    error = await runner.run(taken[index][1], collected)
                if error is not None:
                    # Later ones of its key run again with the next transaction, behind it.
                    errors[index] = error
                    return

        async def together(indexes: list[int]) -> None:
            async with transaction.PartOf(unit):
                refused, error = await runner.run_many([taken[index][1] for index in indexes], collected)
            errors.update({indexes[place]: reason for place, reason in refused.items()})
            left = [index for place, index in enumerate(indexes) if place not in refused]
            if isinstance(error, BatchError):
                errors.update({left[place]: blamed for place, blamed in error.errors.items() if place < len(left)})
            elif error is not None:
                blind = len(left) > 1 and fault_of(error) is Fault.MESSAGE
                errors.update(dict.fromkeys(left, _UnblamedError(str(error)) if blind else error))

        groups: dict[Hashable, list[int]] = {}
        for index, (key, delivery) in enumerate(taken):
            route = delivery.route
            if route is not None and route.options.batch is not None:
                key = route.name, "list"  # noqa: PLW2901 - a list has the order of receipt
            groups.setdefault((index,) if key is None else (None, key), []).append(index)
        calls = []
        for indexes in groups.values():
            route = taken[indexes[0]][1].route
            most = route.options.batch if route is not None else None
            if most is None:
                calls.append(in_order(indexes))
            else:
                calls += [together(indexes[start : start + most]) for start in range(0, len(indexes), most)]
        if len(calls) == 1:
            await calls[0]
        else:
            await asyncio.gather(*calls)
        return errors

    # -- one that failed -----------------------------------------------------------------------------------------------

    async def _deliver(self, delivery: Delivery, error: BaseException) -> None:
        await self._dispatch.deliver(delivery, error, self)

    async def run_alone(self, delivery: Delivery) -> BaseException | None:
        """Run ``delivery`` in a transaction of its own; give what went wrong."""
        errors, failure = await self._transaction([(None, delivery)])
        return errors.get(0, failure)

    async def bury(self, connection: AsyncConnection, delivery: Delivery, error: BaseException) -> None:
        """Record ``delivery``, and what is answered, in the transaction that stores it as a dead letter."""
        reply = error_reply_to(delivery, error)
        if reply is not None:
            collected = Collected(self._mode.client_id)
            await collected.send(reply)
            await collected.store(connection)
        delivery.record = await self._mode.packets.record(connection, [delivery.message])

    def buried(self, delivery: Delivery) -> None:
        """Take note that this transaction was committed."""
        published = delivery.route is not None and delivery.route.options.reply_errors
        self._committed(delivery, published=published)


def _sorted_out(taken: list[Keyed], rest: list[int], guilty: dict[int, BaseException | None]) -> tuple[list[int], list[int]]:
    """Give those places of ``rest`` that can run again at once, and those behind a guilty one of their key."""
    first = {}
    for place in sorted(guilty, reverse=True):
        first[taken[place][0]] = place
    free: list[int] = []
    behind: list[int] = []
    for place in rest:
        key = taken[place][0]
        (behind if key is not None and place > first.get(key, place) else free).append(place)
    return free, behind


def _follows_from_another(error: BaseException | None) -> bool:
    """Say whether ``error`` only tells that another one has spoilt the transaction."""
    if isinstance(error, InvalidRequestError | _UnblamedError):
        return True
    original: Any = getattr(error, "orig", None)
    return getattr(original, "sqlstate", None) == IN_FAILED_TRANSACTION
