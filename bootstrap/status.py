"""What a person sees of a running worker: a block at the start, a line while messages flow, a line at the end."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from config.settings import shown
from core import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from config.settings import Settings
    from core.delivery.ledger import Ledger
    from core.router import Router
    from core.transport.brokers.embedded import EmbeddedBroker
    from core.transport.options import ConnectOptions

EVERY = 10.0
MAX_ROUTES = 20


class StatusLine:
    """Says how many messages came in and what became of them: soon after the first, then every ten seconds at most.

    It is silent while none come. ``tick`` is called once a second, for whatever else is to be told from time to time.
    """

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
        told, told_at = 0, -EVERY
        seen, seen_at = 0, monotonic()
        while True:
            await asyncio.sleep(1)
            self._tick()
            now = monotonic()
            received = self._ledger.received
            if received == told:
                # Nothing new: the rate of the next line is that of the time since messages came again.
                seen, seen_at = received, now
            elif now - told_at >= EVERY:
                self._say(f"{self._ledger}, {(received - seen) / (now - seen_at):,.0f}/s")
                told, told_at = received, now
                seen, seen_at = received, now


def start_block(settings: Settings, options: ConnectOptions, broker: EmbeddedBroker | None, router: Router) -> str:
    """Give the block that is printed at the start: what runs, with what, and where to look next."""
    where = options.address
    if broker is not None and broker.started_here:
        where += f" (embedded, started here; MQTT 3.1.1 on port {broker.port}, MQTT 5 on port {broker.port + 1})"
    elif broker is not None:
        where += " (already running there, none of its own was started)"
    width = max(len(route.pattern.text) for route in router.routes)
    routes = [f"{route.pattern.text:{width}}  {route.handler_name}" for route in router.routes[:MAX_ROUTES]]
    if len(router.routes) > MAX_ROUTES:
        routes.append(f"... and {len(router.routes) - MAX_ROUTES} more: python main.py routes")
    rows = [
        ("broker", where),
        ("client", options.client_id),
        ("database", shown("database_url", settings.database_url) or "none: nothing is stored"),
        *(("routes" if not number else "", route) for number, route in enumerate(routes)),
        ("next", "python main.py simulate, routes or config; Ctrl-C stops"),
    ]
    return "\n".join([f"RouteMQ {__version__}", *(f"  {name:10}{value}" for name, value in rows)])
