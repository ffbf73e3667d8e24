"""Runs handlers: one run of one message, cut off at its deadline, and what came of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from core.codecs.limits import DEFAULT, Limits
from core.context import build
from core.errors import BatchError, HandlerTimeoutError, ReplyError
from core.handling.deadlines import Deadlines
from core.handling.replies import check_response_topic, reply_to, send, wants_reply
from core.records.dedup import once

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.context import Publish
    from core.handling.delivery import Delivery
    from core.middleware import Handler
    from core.route import Dedup, Route


class Runs:
    """Runs handlers; ``timeout`` (seconds) holds for routes that name none, ``publish`` is what contexts publish with.

    ``limits`` hold for the bodies.
    """

    def __init__(self, publish: Publish, timeout: float, limits: Limits = DEFAULT) -> None:
        self.limits = limits
        self._publish = publish
        self._timeout = timeout
        self._deadlines = Deadlines()
        self._dedups: dict[str, Handler] = {}

    async def run(self, delivery: Delivery, publish: Publish | None = None) -> BaseException | None:
        """Run the handler of ``delivery`` once and give what it raised, or None; only a cancellation comes out of here.

        ``publish`` is what its context publishes with, should that be another than that of all.
        """
        route = delivery.route
        if delivery.refused is not None or route is None:
            return delivery.refused
        if route.options.batch is not None:
            refused, error = await self.run_many([delivery])
            if isinstance(error, BatchError):
                error = error.errors.get(0)
            return refused.get(0, error)
        context, refusal = self._context(delivery, route, publish)
        if refusal is not None:
            return refusal
        call = route.call if route.options.dedup is None else self._once(route, route.options.dedup)
        failed = await self._call(call, context, delivery, route.options.timeout or self._timeout)
        return failed if failed is not None or delivery.value is None else await self._reply(delivery, publish)

    async def _reply(self, delivery: Delivery, publish: Publish | None) -> BaseException | None:
        """Send what the handler returned, where somebody asked for it; give what kept it from being written."""
        try:
            reply = reply_to(delivery, delivery.value)
        except Exception as error:  # noqa: BLE001 - a codec may raise anything, which costs this message alone
            return error
        if reply is not None:
            # Not within the handler's time: it waits for a connection, however long that takes.
            await send(reply, publish or self._publish)
        return None

    def _once(self, route: Route, key: Dedup) -> Handler:
        call = self._dedups.get(route.name)
        if call is None:
            call = self._dedups[route.name] = once(route.call, route.name, key)
        return call

    async def run_many(
        self, deliveries: Sequence[Delivery], publish: Publish | None = None
    ) -> tuple[dict[int, BaseException], BaseException | None]:
        """Run the handler of a batch route once with all ``deliveries``, which are of one route.

        Gives the reasons of those whose body cannot be read, by their place, which the handler did not get; and what the
        handler raised for the others, or None.
        """
        first = deliveries[0]
        route = first.route
        assert route is not None  # noqa: S101 - only ever called for routes with batch
        refused: dict[int, BaseException] = {}
        contexts = []
        for index, delivery in enumerate(deliveries):
            context, refusal = self._context(delivery, route, publish)
            if refusal is None:
                contexts.append(context)
            else:
                refused[index] = refusal
        if not contexts:
            return refused, None
        failed = await self._call(route.call, contexts, first, route.options.timeout or self._timeout)
        values, first.value = first.value, None
        if failed is None and values is not None:
            taken = [delivery for index, delivery in enumerate(deliveries) if index not in refused]
            failed = await self._reply_to_all(taken, values, publish)
        return refused, failed

    async def _reply_to_all(self, taken: Sequence[Delivery], values: Any, publish: Publish | None) -> BaseException | None:
        """Send what the handler of a batch returned, a reply for each message."""
        if not any(wants_reply(delivery) for delivery in taken):
            return None
        if not isinstance(values, list | tuple) or len(values) != len(taken):
            return ReplyError(
                f"the handler got {len(taken)} messages and returned {type(values).__name__}, where replies are asked "
                "for; it returns None, or a list with a reply for each message"
            )
        for delivery, value in zip(taken, values, strict=True):
            delivery.value = value
            failed = await self._reply(delivery, publish)
            if failed is not None:
                return failed
        return None

    def _context(self, delivery: Delivery, route: Route, publish: Publish | None) -> tuple[Any, BaseException | None]:
        """Give the context of one run, or what keeps the handler from getting one."""
        unanswerable = check_response_topic(delivery)
        if unanswerable is not None:
            return None, unanswerable
        try:
            context = build(
                delivery.message,
                route,
                delivery.params,
                delivery.first_at,
                delivery.message_id,
                delivery.attempt,
                publish or self._publish,
                self.limits,
            )
        except Exception as error:  # noqa: BLE001 - a codec may raise anything, which costs this message alone
            return None, error
        return context, None

    async def _call(self, call: Handler, argument: Any, delivery: Delivery, timeout: float) -> BaseException | None:
        run = self._deadlines.begin(delivery, timeout)
        try:
            delivery.value = await call(argument)
        except asyncio.CancelledError as error:
            if delivery.timed_out:
                return HandlerTimeoutError(f"the handler did not return within {timeout:g} s and was cut off")
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
