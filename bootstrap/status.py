"""What a person sees of a running worker: a block at the start, a line while messages flow, a line at the end."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.delivery.ledger import Ledger

EVERY = 10.0


class StatusLine:
    """Says every ten seconds at most how many messages came in and what became of them; silent while none come."""

    def __init__(self, ledger: Ledger, say: Callable[[str], None], tick: Callable[[], None]) -> None:
        self._ledger = ledger
        self._say = say
        self._tick = tick
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(self._watch(), name="status line")

    async def stop(self) -> None:
        """Watch no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _watch(self) -> None:
        said = 0
        then = monotonic()
        while True:
            await asyncio.sleep(EVERY)
            now = monotonic()
            received = self._ledger.received
            if received != said:
                self._say(f"{self._ledger}, {(received - said) / (now - then):,.0f}/s")
            said, then = received, now
            self._tick()
