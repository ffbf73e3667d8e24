"""How a message can end."""

from __future__ import annotations

from enum import IntEnum


class End(IntEnum):
    """The end of one received message. The ledger has a counter for each."""

    DONE = 0
    """The handler returned."""
    DEAD_LETTERED = 1
    """The message is stored as a dead letter."""
    FAILED = 2
    """The message is logged and gone: the handler of its ``at_most_once`` route raised, or it was malformed, at QoS 0."""
    DEDUPLICATED = 3
    """The message is known already: a redelivery, a copy for another subscription, or a repeated application key."""
    DROPPED = 4
    """Middleware dropped the message on purpose, or it was a worker's question to the broker."""
    ABANDONED = 5
    """A stop cut the message off, unacknowledged, so that the broker sends it again."""

    WAITING = 6
    """The message waits on disk, because its route stands. It is counted as received once more when it is handled."""

    @property
    def word(self) -> str:
        """The end as a word for people."""
        return self.name.lower().replace("_", "-")
