"""Routes with delivery="exactly_once": what waits is handled within one transaction, which also records the packets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import InvalidRequestError

from core.database import transaction
from core.database.fault import AWAY, Fault, fault_of
from core.database.unit_of_work import UnitOfWork
from core.delivery.shared_runs import Keyed, SharedRuns
from core.delivery.verdict import COMMITTED, Verdict
from core.errors import (
    BatchError,
    DatabaseUnreachableError,
    HandlerTimeoutError,
    MessageError,
    SessionTakenOverError,
    one_line,
)
from core.handling.replies import error_reply_to
from core.records.dedup import Trim
from core.records.outbox import Collected

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

    from core.handling.delivery import Delivery
    from core.handling.dispatch import Dispatch
    from core.records.outbox import Outbox
    from core.records.packets import Packets, Record

MAX_MESSAGES = 500
"""Messages in one transaction."""
IN_FAILED_TRANSACTION = "25P02"
OWN = frozenset({Fault.MESSAGE, Fault.SCHEMA})
"""Faults of which it is known whose they are: a message's, or those of its route."""


class _RolledBackError(Exception):
    """Leaves the transaction, so that it rolls back."""


class _CommittedBeforeError(Exception):
    """Leaves the transaction, as an earlier one with its name was committed, whose answer was lost."""


class _InDoubtError(DatabaseUnreachableError):
    """The database could not be asked whether an earlier transaction was committed."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"whether the last transaction was committed is not known yet: {one_line(error)}")


class _UnblamedError(Exception):
    """The handler of a list raised, and did not say which message is to blame."""


class ExactlyOnce:
    """What exactly-once routes need.

    - ``begin``: opens a transaction.
    - ``packets``: the record of the packets that were committed.
    - ``outbox``: sends what handlers published, after the commit.
    - ``client_id``: the client identifier of the session.
    - ``keep``: seconds for which application keys (``dedup``) are kept.
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

    async def answer(self, connection: AsyncConnection, delivery: Delivery, error: BaseException) -> None:
        """Record, in the transaction of ``connection``, the answer that ``delivery`` failed, where its route gives one."""
        reply = error_reply_to(delivery, error)
        if reply is not None:
            collected = Collected(self.client_id)
            await collected.send(reply)
            await collected.store(connection)


class Transactions(SharedRuns):
    """The messages of all exactly-once routes. One transaction at a time handles all that wait, 500 at most.

    Handlers run side by side within the transaction. Those of one ordering key run one after the other, as do the lists of
    one route. PUBACKs leave after the commit.

    If a handler fails, the whole transaction is rolled back:

    - All other messages run again at once, in a new transaction. The run that was rolled back does not count as one of
      their attempts. Earlier messages with the ordering key of the failed one are among them.
    - After that the message that failed runs alone, by its route's retry policy, in transactions of its own. If it becomes
      a dead letter, the dead letter is committed together with the record of its packet.
    - Later messages with its ordering key wait behind it until it has its end.

    If the commit fails and no handler is to blame, or the transaction loses against others again and again, the messages are
    halved, and each half runs again, until the message that is to blame is alone. A commit is said by whoever made it, never
    concluded from nobody being to blame. One whose answer was lost runs again under its own name, so that the database
    decides.
    """

    def __init__(self, mode: ExactlyOnce, dispatch: Dispatch, ended: Callable[[Delivery], None]) -> None:
        super().__init__(MAX_MESSAGES, dispatch, ended)
        self._mode = mode

    async def _together(self, taken: list[Keyed]) -> Verdict:
        """Run the transaction until it meets no fault of the infrastructure. Return what came of it."""
        outage, first = self._dispatch.outage, taken[0][1]
        deliveries = [delivery for _, delivery in taken]
        while True:
            if outage.active:
                await outage.over(first)
            for delivery in deliveries:
                delivery.attempt += 1
            verdict = await self._transaction(taken)
            if verdict.committed:
                outage.answered(first)
                return verdict
            own: dict[int, BaseException] = {
                place: error
                for place, error in verdict.blamed.items()
                if isinstance(error, HandlerTimeoutError | MessageError)
            }
            if own:
                # Cutting a handler off may cost the connection, and then the others their transaction.
                outage.leave(first)
                return Verdict(committed=False, blamed=own)
            raised = [*verdict.blamed.values(), *([verdict.failure] if verdict.failure is not None else [])]
            faults = {error: fault_of(error) for error in raised if not _follows_from_another(error)}
            away = next((error for error, fault in faults.items() if fault in AWAY), None)
            if away is not None and not OWN.intersection(faults.values()):
                if first.record is None and self._doubt.parts(first, away, len(taken)):
                    outage.leave(first)
                    return Verdict(committed=False, failure=away)
                self._uncount(deliveries)
                await outage.sit_out(first, away)
            elif set(faults.values()) == {Fault.AGAIN}:
                if not await self._lost(deliveries):
                    return Verdict(committed=False, failure=next(iter(faults)))
            else:
                outage.answered(first)
                return _judged(verdict)

    async def _transaction(self, taken: list[Keyed], *, savepoints: bool = False) -> Verdict:
        """Handle ``taken`` in one transaction. Return what handlers raised, or what kept it from being committed.

        The first run does without savepoints. Only if a statement fails does a second one take them.
        """
        unit: UnitOfWork | None = None
        mode, first = self._mode, taken[0][1]
        errors: dict[int, BaseException] = {}
        messages = [delivery.message for _, delivery in taken]
        record: Record | None = None
        collected = Collected(mode.client_id)
        try:
            async with mode.begin() as session:
                if first.record is not None:
                    # The answer to an earlier commit was lost, and it may still be under way: its name is waited for.
                    record = await mode.packets.record(session, messages, first.record.name)
                    if record is None:
                        raise _CommittedBeforeError  # noqa: TRY301 - out of the transaction
                unit = UnitOfWork(session, savepoints=savepoints)
                async with unit.ending():
                    errors = await self._handle(unit, taken, collected)
                if errors or unit.spoilt:
                    raise _RolledBackError  # noqa: TRY301 - out of the transaction
                await collected.store(session)
                await mode.trim.trim(session)
                if record is None:
                    record = await mode.packets.record(session, messages)
                committing = record
        except _CommittedBeforeError:
            self._committed(first)
            return COMMITTED
        except _RolledBackError as error:
            self._dispatch.check_cut(error)
            # Its name was free: what was in doubt has rolled back.
            first.record = None
            if unit is not None and unit.spoilt and not savepoints:
                return await self._transaction(taken, savepoints=True)
            return Verdict(committed=False, blamed=errors)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is known to be committed
            await self._goes_on(error)
            if first.record is not None and record is None:
                # Still in doubt, and for these messages together: nothing else may run before it is known.
                return Verdict(committed=False, failure=_InDoubtError(error))
            first.record = None
            if record is not None and fault_of(error) is Fault.INFRASTRUCTURE:
                first.record = record
            elif unit is not None and unit.spoilt and not savepoints and fault_of(error) is Fault.MESSAGE:
                return await self._transaction(taken, savepoints=True)
            return Verdict(committed=False, blamed=errors, failure=None if errors else error)
        first.record = committing
        self._committed(first, published=bool(collected.rows))
        return COMMITTED

    def _committed(self, first: Delivery, *, published: bool = True) -> None:
        if first.record is not None:
            self._mode.packets.committed(first.record)
            first.record = None
        if published:
            self._mode.outbox.kick()

    async def _goes_on(self, error: Exception) -> None:
        """Return where the messages that met ``error`` are to run again. Otherwise wait until they are cut off."""
        self._dispatch.check_cut(error)
        if isinstance(error, SessionTakenOverError):
            # The other process is sent them. This one is about to end.
            await asyncio.get_running_loop().create_future()

    async def _handle(self, unit: UnitOfWork, taken: list[Keyed], collected: Collected) -> dict[int, BaseException]:
        errors: dict[int, BaseException] = {}
        runner = self._dispatch.runner

        async def in_order(indexes: list[int]) -> None:
            for index in indexes:
                async with transaction.Part(unit):
                    error = await runner.run(taken[index][1], collected)
                if error is not None:
                    # Later ones of its key run again with the next transaction, behind it.
                    errors[index] = error
                    return

        async def in_lists(indexes: list[int], most: int) -> None:
            for start in range(0, len(indexes), most):
                listed = indexes[start : start + most]
                async with transaction.Part(unit):
                    refused, error = await runner.run_many([taken[index][1] for index in listed], collected)
                errors.update({listed[place]: reason for place, reason in refused.items()})
                if error is not None:
                    # Later lists run again with the next transaction, behind this one.
                    left = [index for place, index in enumerate(listed) if place not in refused]
                    errors.update(_blamed(left, error))
                    return

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
            calls.append(in_order(indexes) if most is None else in_lists(indexes, most))
        if len(calls) == 1:
            await calls[0]
        else:
            await asyncio.gather(*calls)
        return errors

    # -- one that failed -----------------------------------------------------------------------------------------------

    async def _deliver(self, delivery: Delivery, error: BaseException | None) -> None:
        await self._dispatch.deliver(delivery, error, self)

    async def run_alone(self, delivery: Delivery) -> BaseException | None:
        """Run ``delivery`` in a transaction of its own. Return what went wrong."""
        verdict = await self._transaction([(None, delivery)])
        if verdict.committed:
            return None
        return verdict.blamed.get(0) or verdict.failure or _UnblamedError("the transaction was rolled back")

    async def bury(self, connection: AsyncConnection, delivery: Delivery, error: BaseException) -> None:
        """Record ``delivery``, and what is answered, in the transaction that stores it as a dead letter."""
        await self._mode.answer(connection, delivery, error)
        await self.park(connection, delivery)

    async def park(self, connection: AsyncConnection, delivery: Delivery) -> None:
        """Record ``delivery`` in the transaction that stores it where it waits for its route."""
        delivery.record = await self._mode.packets.record(connection, [delivery.message])

    def buried(self, delivery: Delivery) -> None:
        """Record that this transaction was committed."""
        published = delivery.route is not None and delivery.route.options.reply_errors
        self._committed(delivery, published=published)


def _judged(verdict: Verdict) -> Verdict:
    """Return ``verdict``, which is not committed, with those blamed who are to blame; or with a failure of nobody's."""
    own = {index: error for index, error in verdict.blamed.items() if not _follows_from_another(error)}
    for fault in (Fault.MESSAGE, Fault.SCHEMA):
        blamed = {index: error for index, error in own.items() if fault_of(error) is fault}
        if blamed:
            return Verdict(committed=False, blamed=blamed)
    failure = verdict.failure or next(iter(verdict.blamed.values()), None)
    return Verdict(committed=False, failure=failure or _UnblamedError("the transaction was rolled back"))


def _blamed(listed: Sequence[int], error: BaseException) -> dict[int, BaseException]:
    """Return the errors of the messages of a list, whose handler raised ``error``, by their places in ``listed``."""
    if isinstance(error, BatchError):
        blamed = {listed[place]: reason for place, reason in error.errors.items() if 0 <= place < len(listed)}
        if blamed:
            return {**blamed}
    blind = len(listed) > 1 and fault_of(error) is Fault.MESSAGE
    return dict.fromkeys(listed, _UnblamedError(str(error)) if blind else error)


def _follows_from_another(error: BaseException | None) -> bool:
    """Return whether ``error`` only tells that another one has spoilt the transaction."""
    if isinstance(error, InvalidRequestError | _UnblamedError):
        return True
    original: Any = getattr(error, "orig", None)
    return getattr(original, "sqlstate", None) == IN_FAILED_TRANSACTION
