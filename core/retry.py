"""How often, and after which pauses, something that failed is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from core.errors import RouteError


@dataclass(frozen=True, slots=True)
class Retry:
    """A route's policy for failures that are the message's own.

    - ``attempts``: how often a message runs at most. The first run counts.
    - ``first``: seconds before the second run.
    - ``factor``: how many times as long each later pause is as the one before.
    - ``most``: seconds that no pause exceeds.
    - ``jitter``: whether a pause is shortened at random, to half of it at the least, so that messages which failed together
      do not come back together.
    - ``on``: the types of exceptions that are retried. None: all of them, except for those that no waiting heals: KeyError,
      TypeError, AttributeError, ModelError, and what the database says of the data itself (SQLSTATE 22 and 23).

    Raise RouteError for fewer than one attempt, a negative pause, or a factor below 1.
    """

    attempts: int = 3
    first: float = 0.2
    factor: float = 4
    most: float = 30
    jitter: bool = True
    on: type[Exception] | tuple[type[Exception], ...] | None = None

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise RouteError(f"Retry(attempts={self.attempts}): there is at least 1 attempt, which is the first run itself")
        if self.first < 0 or self.most < 0 or self.factor < 1:
            raise RouteError(
                f"Retry(first={self.first}, factor={self.factor}, most={self.most}): first and most cannot be negative, and "
                "factor is at least 1"
            )

    def pause(self, attempt: int) -> float:
        """Return the seconds to wait after the run numbered ``attempt`` (from 1) has failed."""
        # The exponent is bounded so that a large number of attempts cannot overflow a float.
        pause = min(self.first * self.factor ** min(attempt - 1, 60), self.most)
        return pause * random.uniform(0.5, 1) if self.jitter else pause  # noqa: S311 - spreads load, guards nothing


class Pauses:
    """Growing pauses between attempts at something that keeps failing.

    - ``first``: seconds of the first pause. Each later one is twice as long as the one before.
    - ``most``: seconds that no pause exceeds.
    - ``jitter``: the largest part of a pause, from 0 to 1, by which it may be shortened at random.
    """

    def __init__(self, first: float, most: float, jitter: float = 0.0) -> None:
        self._first = first
        self._most = most
        self._jitter = jitter
        self._next = first

    def next(self) -> float:
        """Return the seconds of the next pause."""
        pause = self._next
        self._next = min(pause * 2, self._most)
        return pause * random.uniform(1 - self._jitter, 1)  # noqa: S311 - spreads load, guards nothing

    def reset(self) -> None:
        """Begin with the first pause again."""
        self._next = self._first
