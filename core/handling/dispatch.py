"""Brings one message to its end: runs its handler, has the outcome decided, carries it out."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Protocol

from core.codecs.limits import DEFAULT, Limits
from core.database.fault import Fault, fault_of
from core.errors import HandlerTimeoutError, NotYet
from core.handling.failure_log import FailureLog
from core.handling.outage import Outage
from core.handling.outcome import Bury, Done, RetryAfter, decide
from core.handling.replies import error_reply_to, send
from core.handling.runner import Runs
from core.middleware import Passed
from core.records.dead_letters import DeadLetter
from core.runtime.clock import SystemClock

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from core.context import Publish
    from core.delivery.acknowledge import Acknowledgements
    from core.delivery.ledger import Ledger
    from core.handling.delivery import Delivery
    from core.records.dead_letters import Also, DeadLetters
    from core.retry import Retry
    from core.runtime.clock import Clock

log = logging.getLogger("routemq.delivery")


class Unit(Protocol):
    """How a message runs alone whose runs are transactions of ours."""

    async def run_alone(self, delivery: Delivery) -> BaseException | None:
        """Run ``delivery`` in a transaction of its own; give what went wrong."""

    async def bury(self, connection: AsyncConnection, delivery: Delivery, error: BaseException) -> None:
        """Write what belongs to the end of ``delivery``, in the transaction that stores it as a dead letter."""

    def buried(self, delivery: Delivery) -> None:
        """Take note that this transaction was committed."""


class Observer(Protocol):
    """Is told of the outcome of each run: plain calls, which must not raise."""

    def done(self, delivery: Delivery) -> None:
        """Take note that the handler of ``delivery`` returned ``delivery.value``."""

    def runs_again(self, delivery: Delivery, error: BaseException, seconds: float) -> None:
        """Take note that ``delivery`` failed with ``error`` and runs again in ``seconds``."""

    def failed(self, delivery: Delivery, error: BaseException) -> None:
        """Take note that ``delivery`` failed with ``error`` for good."""


class Dispatch:
    """Runs handlers and carries out what is decided about their messages.

    ``dead_letters`` is where messages go that cannot be handled, ``last_resort`` where they go should that refuse one.
    ``retry`` and ``timeout`` (seconds) hold for routes that name none of their own, ``limits`` for all bodies. ``clock`` is
    where pauses between runs take their time from, and ``observer`` is told of the outcome of each run.
    """

    def __init__(
        self,
        ledger: Ledger,
        acknowledgements: Acknowledgements,
        dead_letters: DeadLetters,
        last_resort: DeadLetters,
        publish: Publish,
        client_id: str,
        retry: Retry,
        timeout: float,
        limits: Limits = DEFAULT,
        *,
        clock: Clock | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.failures = FailureLog(log)
        self._ledger = ledger
        self._acknowledgements = acknowledgements
        self._dead_letters = dead_letters
        self._last_resort = last_resort
        self._publish = publish
        self._clock = clock or SystemClock()
        self._observer = observer
        self.runs = Runs(publish, timeout, limits)
        self._client_id = client_id
        self._retry = retry
        self.outage = Outage(log)

    async def deliver(self, delivery: Delivery, failed: BaseException | None = None, unit: Unit | None = None) -> None:
        """Run ``delivery`` until it has its end; nothing but a cancellation comes out of here.

        ``failed`` is what a first run, which was made elsewhere, raised; further runs are those of ``unit``, if given.
        """
        route = delivery.route
        retry = (route and route.options.retry) or self._retry
        while True:
            if failed is None:
                if self.outage.active:
                    await self.outage.over(delivery)
                delivery.attempt += 1
                error = await (self.runs.run(delivery) if unit is None else unit.run_alone(delivery))
            else:
                error, failed = failed, None
            fault = Fault.MESSAGE if error is None else fault_of(error)
            outcome = decide(error, fault, delivery.attempt, delivery.again, retry)
            if error is None or isinstance(outcome, Done):
                self.outage.answered(delivery)
                self._count(delivery)
                break
            if isinstance(outcome, RetryAfter):
                await self._wait_for_retry(delivery, error, outcome)
            elif isinstance(outcome, Bury):
                await self._bury(delivery, error, unit)
                break
            else:
                delivery.attempt -= 1
                await self.outage.sit_out(delivery, error)
        self._acknowledgements.settle(delivery)

    def done(self, delivery: Delivery) -> None:
        """Take note that the handler of ``delivery``, which was run elsewhere, has returned."""
        self._count(delivery)
        self._acknowledgements.settle(delivery)

    def _count(self, delivery: Delivery) -> None:
        value = delivery.value
        if type(value) is Passed:
            self._ledger.count(value.counted)
        else:
            self._ledger.done += 1
        if self._observer is not None:
            self._observer.done(delivery)

    async def _wait_for_retry(self, delivery: Delivery, error: BaseException, outcome: RetryAfter) -> None:
        if isinstance(error, HandlerTimeoutError):
            self.outage.leave(delivery)
        else:
            self.outage.answered(delivery)
        if outcome.counts:
            self.failures.failed(delivery, error, f"runs again in {outcome.seconds:.1f} s")
        elif isinstance(error, NotYet):
            delivery.attempt -= 1
        else:
            delivery.attempt -= 1
            delivery.again += 1
            await asyncio.sleep(outcome.seconds)
            return
        if self._observer is not None:
            self._observer.runs_again(delivery, error, outcome.seconds)
        await self._clock.sleep(outcome.seconds)

    async def _bury(self, delivery: Delivery, error: BaseException, unit: Unit | None) -> None:
        """Store ``delivery`` as a dead letter; an outage of the storage is waited out."""
        self.outage.leave(delivery)
        if delivery.route is not None and delivery.route.options.delivery == "at_most_once":
            self.failures.failed(delivery, error, "dropped, as the route is at_most_once")
            self._ledger.failed += 1
            await self._tell(delivery, error)
            return
        dead_letter = DeadLetter.of(delivery, error, self._client_id, self.runs.limits)
        while True:
            try:
                await self._store(dead_letter, partial(unit.bury, delivery=delivery, error=error) if unit else None)
            except Exception as refusal:  # noqa: BLE001 - until it is stored somewhere, it waits
                await self.outage.sit_out(delivery, refusal)
                continue
            self.outage.answered(delivery)
            if unit is not None:
                unit.buried(delivery)
            self._ledger.dead_lettered += 1
            self.failures.failed(delivery, error, "now a dead letter")
            if unit is None:
                await self._tell(delivery, error)
            elif self._observer is not None:
                self._observer.failed(delivery, error)
            return

    async def _tell(self, delivery: Delivery, error: BaseException) -> None:
        """Answer that ``delivery`` could not be handled, where its route does that."""
        reply = error_reply_to(delivery, error)
        if reply is not None:
            await send(reply, self._publish)
        if self._observer is not None:
            self._observer.failed(delivery, error)

    async def _store(self, dead_letter: DeadLetter, also: Also | None) -> None:
        """Store in the first place, or in the last resort where that refuses this one. Raises what keeps both from it."""
        try:
            await self._dead_letters.add(dead_letter, also)
        except Exception as refusal:
            if fault_of(refusal) is not Fault.MESSAGE:
                raise
            log.exception("a dead letter could not be stored in its table and goes to the file instead")
            await self._last_resort.add(dead_letter)

    def stop(self) -> None:
        """Stop the clocks and tell what the log was spared so far."""
        self.runs.stop()
        self.failures.close()
