"""Waits until failures of the infrastructure are over: one message tries, all others wait, and the log stays readable."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING

from core.errors import BrokerUnreachableError, CounterUnreachableError, one_line
from core.retry import Pauses

if TYPE_CHECKING:
    from core.handling.delivery import Delivery

FIRST_PAUSE = 0.1
"""Seconds."""
MAX_PAUSE = 5.0
"""Seconds."""
REMIND_EVERY = 60.0
"""Seconds between two log lines while an outage lasts."""


class Outage:
    """The time from the first fault of the infrastructure to the first success after it.

    While it lasts, the message that met the fault first runs again and again, with growing pauses (0.1 s to 5 s). All other
    messages wait. ``log`` gets a line when the outage begins, one a minute, and one when it ends.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._trying: Delivery | None = None
        self._changed = asyncio.Event()
        self._pauses = Pauses(FIRST_PAUSE, MAX_PAUSE, jitter=0.25)
        self._since = 0.0
        self._reminded = 0.0
        self._what = ""
        self.active = False

    async def over(self, delivery: Delivery) -> None:
        """Wait until the outage has ended, or until ``delivery`` is the one that tries."""
        while self.active and self._trying is not delivery:
            if self._trying is None:
                self._trying = delivery
                return
            await self._changed.wait()

    async def sit_out(self, delivery: Delivery, error: BaseException) -> None:
        """Wait until ``delivery``, whose run met ``error``, is to run again."""
        now = monotonic()
        if not self.active:
            self.active = True
            self._pauses.reset()
            self._since = self._reminded = now
            self._what = _what(error)
            self._log.error(
                "%s does not answer. Messages wait, unacknowledged, until it does: %s", self._what, one_line(error)
            )
        elif now - self._reminded >= REMIND_EVERY:
            self._reminded = now
            self._log.error("%s has not answered for %.0f s: %s", self._what, now - self._since, one_line(error))
        if self._trying is None:
            self._trying = delivery
        if self._trying is not delivery:
            await self.over(delivery)
            return
        try:
            await asyncio.sleep(self._pauses.next())
        except asyncio.CancelledError:
            self.leave(delivery)
            raise

    def answered(self, delivery: Delivery) -> None:
        """Record that ``delivery`` met no fault of the infrastructure. If it was the one that tried, the outage is over."""
        if self._trying is delivery:
            self.active = False
            self._log.warning("%s answers again after %.1f s", self._what, monotonic() - self._since)
            self.leave(delivery)

    def leave(self, delivery: Delivery) -> None:
        """Record that ``delivery`` tries no more, without knowing whether the outage is over. Another message tries then."""
        if self._trying is delivery:
            self._trying = None
            self._changed.set()
            self._changed.clear()


def _what(error: BaseException) -> str:
    """Return the name of what does not answer, for people."""
    if isinstance(error, CounterUnreachableError):
        return "the counter of rate limits"
    return "the broker" if isinstance(error, BrokerUnreachableError) else "the database"
