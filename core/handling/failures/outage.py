"""Waits until failures of the infrastructure are over: one message at a time tries, and the log stays readable."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from core.database.fault import Fault, fault_of, is_patient, is_unreachable, kind_of
from core.errors import (
    BrokerUnreachableError,
    CounterUnreachableError,
    DatabaseTimeoutError,
    DatabaseUnreachableError,
    one_line,
)
from core.handling.delivery import Refusals
from core.retry import Pauses

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable

    from core.handling.delivery import Delivery

FIRST_PAUSE = 0.1
"""Seconds."""
MAX_PAUSE = 5.0
"""Seconds."""
REMIND_EVERY = 60.0
"""Seconds between two log lines while an outage lasts."""


PATIENCE = 60.0
"""Seconds after which a fault that one message meets counts as its own, if the database answers a ping."""


SHORT_PATIENCE = 2.0
"""The same for faults of a kind that turned out to be a message's own before."""


def _nothing() -> int:
    return 0


async def _no_ping() -> None:
    raise DatabaseUnreachableError("there is no database")


class Outage:
    """The time from the first fault of the infrastructure to the first success after it.

    While it lasts, one message at a time runs, with growing pauses (0.1 s to 5 s). All other messages wait. The message that
    met the fault first tries first. If it fails again, the next one tries, so that no message that alone meets the fault
    holds back all others.

    - ``log``: gets a line when the second run fails, one a minute, and one when the outage ends.
    - ``answers``: counts what the database has answered so far. A message that does not use the database proves nothing.
    - ``ping``: raises an exception if the database does not answer.
    """

    def __init__(
        self,
        log: logging.Logger,
        answers: Callable[[], int] = _nothing,
        ping: Callable[[], Awaitable[None]] = _no_ping,
    ) -> None:
        self._log = log
        self._answers = answers
        self._ping = ping
        self._trying: Delivery | None = None
        self._waiting: deque[tuple[Delivery, asyncio.Future[None]]] = deque()
        self._pauses = Pauses(FIRST_PAUSE, MAX_PAUSE, jitter=0.25)
        self._since = 0.0
        self._reminded = 0.0
        self._what = ""
        self._answered = 0
        self._told = False
        # The kind of the last fault that was a message's own.
        self._own = ""
        self.active = False

    async def over(self, delivery: Delivery) -> None:
        """Wait until the outage has ended, or until ``delivery`` is the one that tries."""
        while self.active and self._trying is not delivery:
            if self._trying is None:
                self._trying = delivery
                return
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((delivery, turn))
            try:
                await turn
            except asyncio.CancelledError:
                self.leave(delivery)
                raise

    async def sit_out(self, delivery: Delivery, error: BaseException) -> None:
        """Wait until ``delivery``, whose run met ``error``, is to run again."""
        now = monotonic()
        if not self.active:
            self.active = True
            self._told = False
            self._pauses.reset()
            self._since = self._reminded = now
            self._what = _what(error)
        elif not self._told:
            # Only now: a fault that one message alone meets is no outage, and ends with the first run of another.
            self._told = True
            self._log.error(
                "%s does not answer. Messages wait, unacknowledged, until it does: %s", self._what, one_line(error)
            )
        elif now - self._reminded >= REMIND_EVERY:
            self._reminded = now
            self._log.error("%s has not answered for %.0f s: %s", self._what, now - self._since, one_line(error))
        if delivery.refusals is None:
            delivery.refusals = Refusals()
        delivery.refusals.answers = self._answered = self._answers()
        if self._trying is None:
            self._trying = delivery
        if self._trying is delivery:
            try:
                await asyncio.sleep(self._pauses.next())
            except asyncio.CancelledError:
                self.leave(delivery)
                raise
            if not self._waiting:
                return
            self.leave(delivery)
        await self.over(delivery)

    def outlived(self, delivery: Delivery) -> bool:
        """Return whether the database has answered others since ``delivery`` met a fault of the infrastructure."""
        return delivery.refusals is not None and self._answers() > delivery.refusals.answers

    def lasts(self, delivery: Delivery, error: BaseException) -> bool:
        """Return whether ``delivery`` has met faults such as ``error`` for so long that they may be its own.

        Somebody else's lock, and a database that cannot be reached or hangs, are waited for without end.
        """
        refusals = delivery.refusals
        if refusals is None:
            return False
        patience = SHORT_PATIENCE if kind_of(error) == self._own else PATIENCE
        if monotonic() - refusals.since < patience:
            return False
        hangs = isinstance(error, DatabaseTimeoutError) or is_unreachable(error) or is_patient(error)
        return not hangs and fault_of(error) is Fault.INFRASTRUCTURE

    async def is_own(self, delivery: Delivery, error: BaseException) -> bool:
        """Return whether ``error`` is the fault of ``delivery`` alone: it lasts, while the database answers a ping."""
        if not self.lasts(delivery, error):
            return False
        try:
            await self._ping()
        except Exception:  # noqa: BLE001 - whatever it raises, the database does not answer
            return False
        self._own = kind_of(error)
        return True

    def answered(self, delivery: Delivery) -> None:
        """Record that ``delivery`` met no fault of the infrastructure.

        If it was the one that tried, the outage is over; unless it has never met the fault, and the database has answered
        nothing since: then it has proved nothing, and another one tries.
        """
        if self._trying is not delivery:
            return
        if delivery.refusals is not None or self._answers() != self._answered:
            if self._told:
                self._log.warning("%s answers again after %.1f s", self._what, monotonic() - self._since)
            self._trying = None
            self.active = False
            while self._waiting:
                _wake(self._waiting.popleft()[1])
        else:
            self.leave(delivery)

    def leave(self, delivery: Delivery) -> None:
        """Record that ``delivery`` tries no more, without knowing whether the outage is over. Another message tries then."""
        if self._trying is not delivery:
            return
        self._trying = None
        while self._waiting:
            following, turn = self._waiting.popleft()
            if _wake(turn):
                self._trying = following
                return


def _wake(turn: asyncio.Future[None]) -> bool:
    """Wake who waits for ``turn``. Return False where nobody does any more."""
    if turn.done():
        return False
    turn.set_result(None)
    return True


def _what(error: BaseException) -> str:
    """Return the name of what does not answer, for people."""
    if isinstance(error, CounterUnreachableError):
        return "the counter of rate limits"
    if isinstance(error, BrokerUnreachableError):
        return "the broker"
    return "the database" if error.__cause__ is None else _what(error.__cause__)
