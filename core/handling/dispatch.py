"""Brings one message to its end: runs its handler, has the outcome decided, and carries the outcome out."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Protocol

from core.database.fault import Fault, fault_of, is_unreachable
from core.errors import DeadLettersFullError, HandlerTimeoutError, MalformedError, NotYet
from core.handling.end import End
from core.handling.failures.failure_log import FailureLog
from core.handling.failures.outcome import WAITED_OUT, Bury, Done, RetryAfter, decide
from core.handling.failures.retry_pauses import RetryPauses
from core.middleware import Passed

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from core.handling.delivery import Delivery
    from core.handling.failures.burial import Burial
    from core.handling.failures.circuit import Circuit, Circuits
    from core.handling.runner import Runner
    from core.retry import Retry
    from core.runtime.clock import Clock

log = logging.getLogger("routemq.delivery")

FULL_PAUSE = 5.0
"""Seconds until it is tried again to store a message where too many are stored."""
_ENDS = {Passed.DUPLICATE: End.DEDUPLICATED, Passed.DROPPED: End.DROPPED}


class Beside(Protocol):
    """Writes what belongs to a message in the transaction that stores it."""

    async def bury(self, connection: AsyncConnection, delivery: Delivery, error: BaseException) -> None:
        """Write what belongs to the end of ``delivery`` in the transaction that stores it as a dead letter."""

    async def park(self, connection: AsyncConnection, delivery: Delivery) -> None:
        """Write what belongs to ``delivery`` in the transaction that stores it where it waits for its route."""

    def buried(self, delivery: Delivery) -> None:
        """Record that the transaction that stored ``delivery`` was committed."""


class Alone(Beside, Protocol):
    """Runs a message of an exactly-once route alone, in transactions of its own."""

    async def run_alone(self, delivery: Delivery) -> BaseException | None:
        """Run ``delivery`` in a transaction of its own. Return what went wrong, or None."""


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
    - ``circuits``: which routes stand.
    - ``observer``: is told of the outcome of each run. None where nobody is to be told.
    """

    def __init__(
        self,
        runner: Runner,
        burial: Burial,
        retry: Retry,
        clock: Clock,
        circuits: Circuits,
        observer: Observer | None,
    ) -> None:
        self.runner = runner
        self.circuits = circuits
        self.outage = circuits.outage
        self.failures = FailureLog(logging.getLogger("routemq.delivery.failures"))
        self.is_cut = False
        self._burial = burial
        self._retry = retry
        self.pauses = RetryPauses(clock)
        self._clock = clock
        self._observer = observer

    async def deliver(self, delivery: Delivery, failed: BaseException | None = None, alone: Alone | None = None) -> None:
        """Run ``delivery`` until it has its end. Raise nothing but a cancellation.

        - ``failed``: what the first run raised, if that run was made elsewhere.
        - ``alone``: makes the runs in the place of the runner. It is given for exactly-once routes.
        """
        retry = self.policy(delivery)
        while True:
            if failed is None:
                circuit = self.circuits.of(delivery) if self.circuits.standing else None
                # Whether a message is stored, of which that is in doubt, only another run under the same name tells.
                if circuit is not None and delivery.record is None:
                    await self._park(delivery, circuit, alone)
                    return
                if self.outage.active:
                    await self.outage.over(delivery)
                delivery.attempt += 1
                error = await (self.runner.run(delivery) if alone is None else alone.run_alone(delivery))
                self.check_cut(error)
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
                if _may_wait(delivery) and self.circuits.failed(delivery, error):
                    self.outage.leave(delivery)
                    continue
                await self.bury(delivery, error, alone)
                return
            elif await self._sat_out(delivery, error, fault):
                delivery.attempt -= 1
            else:
                await self.bury(delivery, error, alone)
                if delivery.end is not None:
                    return
                delivery.attempt -= 1

    def policy(self, delivery: Delivery) -> Retry:
        """Return the retry policy that holds for ``delivery``."""
        return (delivery.route and delivery.route.options.retry) or self._retry

    async def _sat_out(self, delivery: Delivery, error: BaseException, fault: Fault) -> bool:
        """Wait until ``delivery``, whose run met a fault of the infrastructure, is to run again.

        Return False where the fault is the message's own, because others pass again and again while it does not.
        """
        if delivery.record is not None:
            await self.outage.sit_out(delivery, error)
            return True
        alone = fault is Fault.SCHEMA or (fault is Fault.INFRASTRUCTURE and self.outage.outlived(delivery))
        if not alone or is_unreachable(error):
            if await self.outage.is_own(delivery, error):
                return False
            await self.outage.sit_out(delivery, error)
            return True
        self.outage.leave(delivery)
        seconds = self.circuits.refused(delivery, error)
        if seconds is None or await self.outage.is_own(delivery, error):
            return False
        if self.circuits.of(delivery) is not None:
            # Its route stands now, so that it waits on disk.
            return True
        self.failures.failed(delivery, error, f"runs again in {seconds:.1f} s, because the database answers others")
        await asyncio.sleep(seconds)
        return True

    async def _park(self, delivery: Delivery, circuit: Circuit, alone: Beside | None) -> None:
        """Store ``delivery``, whose route stands, on disk, where it waits. Wait out an outage of the storage."""
        letter = self._burial.letter(delivery, delivery.message.fault or circuit.why)
        also = None if alone is None else partial(alone.park, delivery=delivery)
        circuit.storing.add(delivery.message_id)
        try:
            while True:
                try:
                    await self._burial.park(letter, also)
                except DeadLettersFullError as full:
                    self.outage.leave(delivery)
                    await self._wait_for_room(delivery, full)
                except Exception as refusal:  # noqa: BLE001 - the message waits until it is stored
                    await self.outage.sit_out(delivery, refusal)
                else:
                    circuit.stored += 1
                    break
        finally:
            circuit.storing.discard(delivery.message_id)
        self.outage.answered(delivery)
        if alone is not None:
            alone.buried(delivery)
        delivery.end = End.WAITING

    def done(self, delivery: Delivery) -> None:
        """Write on ``delivery`` that its handler has returned, or that middleware is done with it."""
        value = delivery.value
        delivery.end = _ENDS[value] if type(value) is Passed else End.DONE
        self.circuits.done(delivery)
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
        if outcome.counts:
            await self.pauses.wait(delivery, outcome.seconds)
        else:
            await self._clock.sleep(outcome.seconds)

    def cut(self) -> None:
        """Record that all that runs is cut off now."""
        self.is_cut = True

    def check_cut(self, error: BaseException | None) -> None:
        """Raise CancelledError where ``error`` came of a run after the cut: it may only follow from that.

        Code that is cancelled may raise something else, or swallow it. Neither is a failed run, and none comes after it.
        """
        if error is not None and self.is_cut:
            raise asyncio.CancelledError from error

    async def bury(self, delivery: Delivery, error: BaseException, alone: Beside | None) -> None:
        """Store ``delivery`` as a dead letter. Wait out an outage of the storage.

        Where there are too many dead letters, its route stands, and it waits on disk. It has no end if it did so before, or
        where ``error`` is a fault of the infrastructure that keeps it from being stored as well.
        """
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
            except DeadLettersFullError as full:
                if await self._found_no_room(delivery, error, full, alone):
                    return
                continue
            except Exception as refusal:  # noqa: BLE001 - the message waits until it is stored somewhere
                await self.outage.sit_out(delivery, refusal)
                if fault_of(error) in WAITED_OUT:
                    # Not even this can be stored, so that the fault is not the message's own after all.
                    return
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

    async def _found_no_room(
        self, delivery: Delivery, error: BaseException, full: DeadLettersFullError, alone: Beside | None
    ) -> bool:
        """Have the route of ``delivery`` stand, as no dead letter has room. Return whether it waits on disk now."""
        if delivery.route is not None:
            self.circuits.stand(delivery.route.name, str(full))
        if delivery.stored is not None:
            self.circuits.found_no_room(delivery, error)
            return True
        circuit = self.circuits.of(delivery)
        if circuit is not None:
            await self._park(delivery, circuit, alone)
            return True
        await self._wait_for_room(delivery, full)
        return False

    async def _wait_for_room(self, delivery: Delivery, full: DeadLettersFullError) -> None:
        self.failures.failed(delivery, full, f"is tried again every {FULL_PAUSE:.0f} s, unacknowledged")
        await asyncio.sleep(FULL_PAUSE)

    async def _tell(self, delivery: Delivery, error: BaseException) -> None:
        """Reply that ``delivery`` could not be handled, where its route does that. Tell the observer."""
        await self.runner.reply_error(delivery, error)
        if self._observer is not None:
            self._observer.failed(delivery, error)

    def stop(self) -> None:
        """Stop the clocks. Log how many failures were not logged one by one."""
        self.runner.stop()
        self.failures.close()


def _may_wait(delivery: Delivery) -> bool:
    """Return whether ``delivery`` may wait for its route, in the place of becoming a dead letter."""
    return delivery.route is not None and delivery.route.options.delivery != "at_most_once"


def _why_dropped(delivery: Delivery, error: BaseException) -> str | None:
    """Return why a message that failed for good does not become a dead letter. None for one that does."""
    if delivery.route is not None and delivery.route.options.delivery == "at_most_once":
        return "its route is at_most_once"
    if isinstance(error, MalformedError) and not delivery.message.qos:
        return "it came at QoS 0"
    return None
