"""Where messages go that cannot be handled: whole, with the reason, durable before they are acknowledged."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.ext.asyncio import AsyncConnection


log = logging.getLogger("routemq.delivery")

MAX_TRACEBACK = 20_000
MAX_REASON = 8_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that could not be handled, and why. Times are aware, in UTC."""

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


@dataclass(frozen=True, slots=True)
class Stored:
    """A dead letter where it is stored, under its number there."""

    id: int
    letter: DeadLetter


Also = Callable[["AsyncConnection"], Awaitable[None]]
"""Writes something more in the transaction that stores a dead letter."""


class DeadLetters(Protocol):
    """A place for dead letters."""

    async def add(self, dead_letter: DeadLetter, also: Also | None = None) -> None:
        """Store ``dead_letter``; it is durable when this returns. Raises what the storage raises.

        ``also`` is called within the same transaction, where the storage has such.
        """


class DeadLetterStore(DeadLetters, Protocol):
    """A place where dead letters have ascending numbers and can be looked at. Everything raises what the storage raises."""

    async def count(self) -> int:
        """Give how many there are."""

    async def last(self) -> int:
        """Give the highest number, 0 if there are none."""

    async def read(self, *, after: int = 0, most: int = 100, route: str | None = None) -> list[Stored]:
        """Give at most ``most`` of those with numbers above ``after``, the oldest first; ``route`` is a route's name."""

    async def latest(self, *, most: int, route: str | None = None) -> list[Stored]:
        """Give the latest ``most``, the oldest of them first."""

    async def get(self, number: int) -> Stored | None:
        """Give the one with this number."""

    async def remove(self, numbers: Collection[int]) -> int:
        """Remove those with these numbers, and give how many there were."""
