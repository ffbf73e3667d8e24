"""How often, and after which pauses, a failed message is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from core.errors import RouteError


@dataclass(frozen=True, slots=True)
class Retry:
    """A route's policy for failures that are the message's own.

    ``attempts`` counts the first run too. The pause before the second is ``first`` seconds, each later one ``factor``
    times the one before, none longer than ``most`` seconds; ``jitter`` takes a random part between half and all of it,
    so that messages which failed together do not come back together. Only exceptions of the types ``on`` are retried.
    """

    attempts: int = 3
    first: float = 0.2
    factor: float = 4
    most: float = 30
    jitter: bool = True
    on: type[Exception] | tuple[type[Exception], ...] = Exception

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise RouteError(f"Retry(attempts={self.attempts}): at least 1, which is the first run itself")
        if self.first < 0 or self.most < 0 or self.factor < 1:
            raise RouteError(
                f"Retry(first={self.first}, factor={self.factor}, most={self.most}): pauses are not negative, "
                "and the factor is at least 1"
            )

    def pause(self, attempt: int) -> float:
        """Give the seconds to wait after the run numbered ``attempt`` (from 1) has failed."""
        # The exponent is bounded so that a large number of attempts cannot overflow a float.
        pause = min(self.first * self.factor ** min(attempt - 1, 60), self.most)
        return pause * random.uniform(0.5, 1) if self.jitter else pause  # noqa: S311 - spreads load, guards nothing
