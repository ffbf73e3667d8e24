"""Dead letters: messages that cannot be handled, whole and with the reason, durable before they are acknowledged."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from core.errors import DeadLettersFullError

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.ext.asyncio import AsyncConnection

log = logging.getLogger("routemq.delivery")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that could not be handled, and why.

    - ``topic``, ``body``, ``qos``, ``retain``, ``properties``: the message as it came in.
    - ``route``: the name of the route that took it. None where no route did.
    - ``error``: the class of the error.
    - ``reason``: the error in words.
    - ``traceback``: where it was raised. None for a message that did not run.
    - ``attempts``: how often the message ran.
    - ``first_at``: the time of its first receipt, aware, in UTC.
    - ``last_at``: the time of its last failure, aware, in UTC.
    - ``client_id``: the client identifier of the session that it came from.
    - ``message_id``: the identifier of the message in its worker. A message has one dead letter. None for letters of before
      there was one.
    """

    topic: str
    body: bytes
    qos: int
    retain: bool
    properties: dict[str, Any] | None
    route: str | None
    error: str
    reason: str
    traceback: str | None
    attempts: int
    first_at: datetime
    last_at: datetime
    client_id: str
    message_id: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A dead letter, with its number in the place where it is stored."""

    id: int
    letter: DeadLetter


MAX_BYTES = 1024**3
"""Bytes of the bodies that are stored in one place, where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a place holds. What does not fit is refused, and nothing is deleted to make room for it.

    - ``messages``: the number of messages.
    - ``size``: the bytes of their bodies.
    """

    messages: int
    size: int = MAX_BYTES

    def check(self, messages: int, size: int) -> None:
        """Raise DeadLettersFullError where ``messages`` with ``size`` bytes leave no room for another one."""
        if messages >= self.messages or size >= self.size:
            raise DeadLettersFullError(
                f"{messages:,} messages with {size:,} bytes are stored already, and no more may be "
                f"(DEAD_LETTER_MAX={self.messages}, DEAD_LETTER_MAX_BYTES={self.size}). See python main.py dead-letters "
                "list, then replay or drop them"
            )


Also = Callable[["AsyncConnection"], Awaitable[None]]
"""Writes something more in the transaction that stores a dead letter."""


class DeadLetters(Protocol):
    """A place for dead letters."""

    async def add(self, dead_letter: DeadLetter, also: Also | None = None) -> None:
        """Store ``dead_letter``. It is durable when this returns. Raise what the storage raises.

        ``also`` is called within the same transaction. A storage without transactions does not call it.
        """


class DeadLetterStore(DeadLetters, Protocol):
    """A place where dead letters have ascending numbers and can be read. All methods raise what the storage raises."""

    async def count(self) -> int:
        """Return the number of dead letters."""

    async def routes(self) -> dict[str, int]:
        """Return how many dead letters there are of each route, by its name."""

    async def last(self) -> int:
        """Return the highest number of a dead letter. Return 0 where there are none."""

    async def read(self, *, after: int = 0, most: int = 100, route: str | None = None) -> list[Stored]:
        """Return at most ``most`` dead letters with numbers above ``after``, the oldest first.

        With ``route``, return those of the route of that name only.
        """

    async def latest(self, *, most: int, route: str | None = None) -> list[Stored]:
        """Return the latest ``most`` dead letters, the oldest of them first. With ``route``, return those of that route."""

    async def get(self, number: int) -> Stored | None:
        """Return the dead letter with this number, or None."""

    async def remove(self, numbers: Collection[int]) -> int:
        """Remove the dead letters with these numbers. Return how many there were."""
