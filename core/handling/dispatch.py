"""Brings one message to its end: runs its handler, has the outcome decided, and carries the outcome out."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Protocol

from core.database.fault import Fault, fault_of
from core.errors import HandlerTimeoutError, MalformedError, NotYet
from core.handling.end import End
from core.handling.failure_log import FailureLog
from core.handling.outage import Outage
from core.handling.outcome import Bury, Done, RetryAfter, decide
from core.middleware import Passed

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from core.handling.burial import Burial
    from core.handling.delivery import Delivery
    from core.handling.runner import Runner
    from core.retry import Retry
    from core.runtime.clock import Clock

log = logging.getLogger("routemq.delivery")


_ENDS = {Passed.DUPLICATE: End.DEDUPLICATED, Passed.DROPPED: End.DROPPED}


class Alone(Protocol):
    """Runs a message of an exactly-once route alone, in transactions of its own."""

    async def run_alone(self, delivery: Delivery) -> BaseException | None:
        """Run ``delivery`` in a transaction of its own. Return what went wrong, or None."""

    async def bury(self, connection: AsyncConnection, delivery: Delivery, error: BaseException) -> None:
        """Write what belongs to the end of ``delivery`` in the transaction that stores it as a dead letter."""

    def buried(self, delivery: Delivery) -> None:
        """Record that the transaction that stored ``delivery`` as a dead letter was committed."""


class Observer(Protocol):
    """Is told of the outcome of each run. Its methods must not raise."""

    def done(self, delivery: Delivery) -> None:
        """Record that the handler of ``delivery`` returned ``delivery.value``."""

    def runs_again(self, delivery: Delivery, error: BaseException, seconds: float) -> None:
        """Record that ``delivery`` failed with ``error``, and that it runs again in ``seconds``."""

    def failed(self, delivery: Delivery, error: BaseException) -> None:
        """Record that ``delivery`` failed with ``error`` for good."""


class Dispatch:
    """Runs handlers, and carries out what is decided about their messages.

    It writes the end of a message on its delivery. The consumer counts that end and has the message acknowledged.

    - ``runner``: runs handlers.
    - ``burial``: stores messages that cannot be handled.
    - ``retry``: the policy of routes that name none.
    - ``clock``: waits between two runs.
    - ``observer``: is told of the outcome of each run. None where nobody is to be told.
    """

    def __init__(self, runner: Runner, burial: Burial, retry: Retry, clock: Clock, observer: Observer | None) -> None:
        self.runner = runner
        self.failures = FailureLog(logging.getLogger("routemq.delivery.failures"))
        self.outage = Outage(log)
        self._burial = burial
        self._retry = retry
        self._clock = clock
        self._observer = observer

    async def deliver(self, delivery: Delivery, failed: BaseException | None = None, alone: Alone | None = None) -> None:
        """Run ``delivery`` until it has its end. Raise nothing but a cancellation.

        - ``failed``: what the first run raised, if that run was made elsewhere.
        - ``alone``: makes the runs in the place of the runner. It is given for exactly-once routes.
        """
        route = delivery.route
        retry = (route and route.options.retry) or self._retry
        while True:
            if failed is None:
                if self.outage.active:
                    await self.outage.over(delivery)
                delivery.attempt += 1
                error = await (self.runner.run(delivery) if alone is None else alone.run_alone(delivery))
            else:
                error, failed = failed, None
            fault = Fault.MESSAGE if error is None else fault_of(error)
            outcome = decide(error, fault, delivery.attempt, delivery.again, retry)
            if error is None or isinstance(outcome, Done):
                self.outage.answered(delivery)
                self.done(delivery)
                return
            if isinstance(outcome, RetryAfter):
                await self._wait_for_retry(delivery, error, outcome)
            elif isinstance(outcome, Bury):
                await self._bury(delivery, error, alone)
                return
            else:
                delivery.attempt -= 1
                await self.outage.sit_out(delivery, error)

    def done(self, delivery: Delivery) -> None:
        """Write on ``delivery`` that its handler has returned, or that middleware is done with it."""
        value = delivery.value
        delivery.end = _ENDS[value] if type(value) is Passed else End.DONE
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

    async def _bury(self, delivery: Delivery, error: BaseException, alone: Alone | None) -> None:
        """Store ``delivery`` as a dead letter. Wait out an outage of the storage."""
        self.outage.leave(delivery)
        dropped = _why_dropped(delivery, error)
        if dropped is not None:
            self.failures.failed(delivery, error, f"is dropped, because {dropped}")
            delivery.end = End.FAILED
            await self._tell(delivery, error)
            return
        letter = self._burial.letter(delivery, error)
        also = None if alone is None else partial(alone.bury, delivery=delivery, error=error)
        while True:
            try:
                await self._burial.store(letter, also)
            except Exception as refusal:  # noqa: BLE001 - the message waits until it is stored somewhere
                await self.outage.sit_out(delivery, refusal)
                continue
            self.outage.answered(delivery)
            if alone is not None:
                alone.buried(delivery)
            delivery.end = End.DEAD_LETTERED
            self.failures.failed(delivery, error, "is now a dead letter")
            if alone is None:
                await self._tell(delivery, error)
            elif self._observer is not None:
                self._observer.failed(delivery, error)
            return

    async def _tell(self, delivery: Delivery, error: BaseException) -> None:
        """Reply that ``delivery`` could not be handled, where its route does that. Tell the observer."""
        await self.runner.reply_error(delivery, error)
        if self._observer is not None:
            self._observer.failed(delivery, error)

    def stop(self) -> None:
        """Stop the clocks. Log how many failures were not logged one by one."""
        self.runner.stop()
        self.failures.close()


def _why_dropped(delivery: Delivery, error: BaseException) -> str | None:
    """Return why a message that failed for good does not become a dead letter. None for one that does."""
    if delivery.route is not None and delivery.route.options.delivery == "at_most_once":
        return "its route is at_most_once"
    if isinstance(error, MalformedError) and not delivery.message.qos:
        return "it came at QoS 0"
    return None
