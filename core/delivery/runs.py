"""Runs handlers: one run of one message, cut off at its deadline, and what came of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from core.context import build
from core.delivery.deadlines import Deadlines
from core.errors import HandlerTimeoutError

if TYPE_CHECKING:
    from core.context import Publish
    from core.delivery.delivery import Delivery


class Runs:
    """Runs handlers; ``timeout`` (seconds) holds for routes that name none, ``publish`` is what contexts publish with."""

    def __init__(self, publish: Publish, timeout: float) -> None:
        self._publish = publish
        self._timeout = timeout
        self._deadlines = Deadlines()

    async def run(self, delivery: Delivery) -> BaseException | None:
        """Run the handler of ``delivery`` once and give what it raised, or None; only a cancellation comes out of here."""
        route = delivery.route
        if delivery.refused is not None or route is None:
            return delivery.refused
        run = self._deadlines.begin(delivery, route.options.timeout or self._timeout)
        try:
            await route.call(
                build(
                    delivery.message,
                    route,
                    delivery.params,
                    delivery.first_at,
                    delivery.message_id,
                    delivery.attempt,
                    self._publish,
                )
            )
        except asyncio.CancelledError as error:
            if delivery.timed_out:
                return HandlerTimeoutError(f"the handler did not return within {run.timeout:g} s and was cut off")
            if run.task.cancelling():
                raise
            # A cancellation that is not ours came out of the handler, from a task of its own: that is its failure.
            return error
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a handler raises costs its message alone
            return error
        finally:
            run.end()
            if delivery.timed_out:
                delivery.timed_out = False
                run.task.uncancel()
        return None

    def stop(self) -> None:
        """Stop all clocks."""
        self._deadlines.stop()
