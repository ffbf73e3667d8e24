"""Counts every message that came in, and every end of a message."""

from __future__ import annotations

from core.handling.end import End


class Ledger:
    """Counters since the start of the process.

    Between two turns of the event loop, ``received`` is the sum of all others::

        received = done + dead_lettered + failed + deduplicated + dropped + abandoned + waiting + in_hand

    There is a counter for each ``core.handling.end.End``. ``in_hand`` counts the messages that have no end yet.
    """

    __slots__ = ("_ends", "in_hand", "received")

    def __init__(self) -> None:
        self.received = 0
        self.in_hand = 0
        self._ends = [0] * len(End)

    def count(self, end: End, messages: int = 1) -> None:
        """Count ``messages`` further messages that ended with ``end``."""
        self._ends[end] += messages

    def of(self, end: End) -> int:
        """Return the number of messages that ended with ``end``."""
        return self._ends[end]

    @property
    def done(self) -> int:
        """Messages whose handler returned."""
        return self._ends[End.DONE]

    @property
    def dead_lettered(self) -> int:
        """Messages that were stored as dead letters."""
        return self._ends[End.DEAD_LETTERED]

    @property
    def failed(self) -> int:
        """Messages of ``at_most_once`` routes whose handler raised, and malformed messages at QoS 0."""
        return self._ends[End.FAILED]

    @property
    def deduplicated(self) -> int:
        """Messages that were known already."""
        return self._ends[End.DEDUPLICATED]

    @property
    def dropped(self) -> int:
        """Messages that middleware dropped on purpose."""
        return self._ends[End.DROPPED]

    @property
    def abandoned(self) -> int:
        """Messages that a stop cut off, unacknowledged."""
        return self._ends[End.ABANDONED]

    @property
    def waiting(self) -> int:
        """Messages that were stored on disk, because their routes stood."""
        return self._ends[End.WAITING]

    @property
    def balanced(self) -> bool:
        """Whether every received message is accounted for."""
        return self.received == sum(self._ends) + self.in_hand

    def __str__(self) -> str:
        """Return all counters in one line, from received to in hand. Ends that never happened are left out."""
        ends = [f"{self._ends[end]:,} {end.word}" for end in End if end is not End.DONE and self._ends[end]]
        return ", ".join([f"{self.received:,} received", f"{self.done:,} done", *ends, f"{self.in_hand:,} in hand"])
