"""Whether a fault of the infrastructure, which several messages met together, may be one message's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.database.fault import is_unreachable

if TYPE_CHECKING:
    from core.handling.delivery import Delivery
    from core.handling.failures.outage import Outage

MAX_TRIES = 3
"""Runs together that fail before the messages run in halves."""
MAX_ALONE = 2
"""Messages in a row that fail alone, with nothing that passes, after which no more are taken apart."""


class Doubt:
    """The doubt of one attempt to bring messages to their end together.

    If one message alone meets the fault, halving finds it, and the others pass. If all meet it, the infrastructure is at
    fault, and there is no use in halving: after two single messages have failed in a row, the next one waits it out.
    """

    __slots__ = ("_alone", "_halves", "_outage", "_tries")

    def __init__(self, outage: Outage) -> None:
        self._outage = outage
        self._tries = 0
        self._halves = False
        self._alone = 0

    def passed(self) -> None:
        """Record that messages have passed."""
        self._alone = 0

    def parts(self, first: Delivery, error: BaseException, count: int) -> bool:
        """Return whether ``count`` messages, which met ``error`` together, are to be told apart.

        ``first`` is one of them.
        """
        if is_unreachable(error):
            return False
        self._tries += 1
        if self._outage.outlived(first) or (count > 1 and self._tries >= MAX_TRIES):
            self._halves = True
        if count == 1 and self._outage.lasts(first, error):
            return True
        if not self._halves or count > 1:
            return self._halves
        self._alone += 1
        return self._alone <= MAX_ALONE or self._outage.outlived(first)
