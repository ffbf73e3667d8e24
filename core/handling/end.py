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
    """The handler of an ``at_most_once`` route raised. The message is logged and gone, as the route allows."""
    DEDUPLICATED = 3
    """The message is known already: a redelivery, a copy for another subscription, or a repeated application key."""
    DROPPED = 4
    """Middleware dropped the message on purpose, or it was a worker's question to the broker."""
    ABANDONED = 5
    """A stop cut the message off, unacknowledged, so that the broker sends it again."""

    @property
    def word(self) -> str:
        """The end as a word for people."""
        return self.name.lower().replace("_", "-")
