"""What a person sees of a running worker: a block of lines at the start, and a line from time to time."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from config.settings import masked
from core import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from config.settings import Settings
    from core.delivery.ledger import Ledger
    from core.router import Router
    from core.transport.brokers.embedded import EmbeddedBroker
    from core.transport.options import ConnectOptions

INTERVAL = 10.0
"""Seconds between two lines, while messages come."""
MAX_ROUTES = 20


class StatusLine:
    """A line that says how many messages came in and what became of them.

    ``say`` is called with it soon after the first message, and then every ten seconds while more come.
    ``tick`` is called once a second, for whatever else has to be done from time to time.
    """

    def __init__(self, ledger: Ledger, say: Callable[[str], None], tick: Callable[[], None]) -> None:
        self._ledger = ledger
        self._say = say
        self._tick = tick
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to watch the ledger."""
        self._task = asyncio.create_task(self._watch(), name="status line")

    async def stop(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _watch(self) -> None:
        told, told_at = 0, -INTERVAL
        seen, seen_at = 0, monotonic()
        while True:
            await asyncio.sleep(1)
            self._tick()
            now = monotonic()
            received = self._ledger.received
            if received == told:
                # Nothing is new. The next line gives the rate since messages came again, not since the last line.
                seen, seen_at = received, now
            elif now - told_at >= INTERVAL:
                self._say(f"{self._ledger}, {(received - seen) / (now - seen_at):,.0f}/s")
                told, told_at = received, now
                seen, seen_at = received, now


def start_block(settings: Settings, options: ConnectOptions, broker: EmbeddedBroker | None, router: Router) -> str:
    """Return the block that is printed at the start: what runs, what it uses, and what to do next."""
    where = options.address
    if broker is not None and broker.started_here:
        where += f" (started by this worker: MQTT 3.1.1 on port {broker.port}, MQTT 5 on port {broker.port + 1})"
    elif broker is not None:
        where += " (already running there, so this worker started none)"
    width = max(len(route.pattern.text) for route in router.routes)
    routes = [f"{route.pattern.text:{width}}  {route.handler_name}" for route in router.routes[:MAX_ROUTES]]
    if len(router.routes) > MAX_ROUTES:
        routes.append(f"... and {len(router.routes) - MAX_ROUTES} more, which python main.py routes shows")
    rows = [
        ("broker", where),
        ("client", options.client_id),
        ("database", masked("database_url", settings.database_url) or "none, so nothing is stored"),
        *(("routes" if not number else "", route) for number, route in enumerate(routes)),
        ("try it", "run python main.py simulate in another terminal"),
        ("stop", "press Ctrl-C"),
    ]
    return "\n".join([f"RouteMQ {__version__}", *(f"  {name:10}{value}" for name, value in rows)])
