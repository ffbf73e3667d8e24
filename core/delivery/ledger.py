"""The count of every message that came in, and of the end it found."""

from __future__ import annotations


class Ledger:
    """Counters since the start of the process.

    At every moment between two turns of the event loop ``received`` is the sum of all the others::

        received = done + dead_lettered + failed + deduplicated + dropped + abandoned + in_hand

    ``done``: the handler returned. ``dead_lettered``: stored as a dead letter. ``failed``: the handler of an
    ``at_most_once`` route raised; the message is logged and gone, as the route allows. ``deduplicated``: a redelivery of
    a message that is still in hand or waits for its acknowledgement, or a further copy for an overlapping subscription.
    ``dropped``: by middleware, on purpose.
    ``abandoned``: cut off by a stop, unacknowledged, so that the broker sends it again. ``in_hand``: none of these yet.
    """

    __slots__ = ("abandoned", "dead_lettered", "deduplicated", "done", "dropped", "failed", "in_hand", "received")

    def __init__(self) -> None:
        self.received = 0
        self.done = 0
        self.dead_lettered = 0
        self.failed = 0
        self.deduplicated = 0
        self.dropped = 0
        self.abandoned = 0
        self.in_hand = 0

    def count(self, end: str) -> None:
        """Count one more of ``end``, the name of a counter."""
        setattr(self, end, getattr(self, end) + 1)

    @property
    def balanced(self) -> bool:
        """Whether every received message is accounted for."""
        ends = self.done + self.dead_lettered + self.failed + self.deduplicated + self.dropped + self.abandoned
        return self.received == ends + self.in_hand

    def __str__(self) -> str:
        """Give all counters in one line, the way in first; ends that never happened are left out."""
        ends = [
            f"{count:,} {name}"
            for count, name in (
                (self.dead_lettered, "dead-lettered"),
                (self.failed, "failed"),
                (self.deduplicated, "deduplicated"),
                (self.dropped, "dropped"),
                (self.abandoned, "abandoned"),
            )
            if count
        ]
        return ", ".join([f"{self.received:,} received", f"{self.done:,} done", *ends, f"{self.in_hand:,} in hand"])
