"""The pauses of messages that are to run again, cut short where they take the room of all others."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.handling.delivery import Delivery
    from core.runtime.clock import Clock


def _never() -> bool:
    return False


class RetryPauses:
    """Has messages wait before they run again, together with those behind them, which have their ordering key.

    They hold at most ``share`` messages while others wait for room. Beyond that, the pauses of those that hold the most end
    at once: they run out of attempts and become dead letters, so that one device whose messages fail cannot stop the rest.

    - ``clock``: waits.
    - ``crowded``: tells whether others wait for room, because the window is full.
    """

    def __init__(self, clock: Clock) -> None:
        self.share = 0
        self.crowded: Callable[[], bool] = _never
        self._clock = clock
        self._waiting: dict[Delivery, asyncio.Timeout] = {}

    def __len__(self) -> int:
        """Return the number of messages that wait."""
        return len(self._waiting)

    async def wait(self, delivery: Delivery, seconds: float) -> None:
        """Wait for ``seconds``, or until the room that ``delivery`` and those behind it hold is needed."""
        try:
            # The clock has to know of the pause before anything else runs, or a test could move it on too early.
            with suppress(TimeoutError):
                async with asyncio.timeout(None) as ends:
                    self._waiting[delivery] = ends
                    if self.crowded():
                        self.make_room()
                    await self._clock.sleep(seconds)
        finally:
            del self._waiting[delivery]

    def make_room(self) -> None:
        """End pauses until those that wait hold no more than their share."""
        held = {delivery: 1 + len(delivery.behind) for delivery, ends in self._waiting.items() if ends.when() is None}
        total, now = sum(held.values()), asyncio.get_running_loop().time()
        for delivery in sorted(held, key=held.__getitem__, reverse=True):
            if total <= self.share:
                return
            total -= held[delivery]
            self._waiting[delivery].reschedule(now)
