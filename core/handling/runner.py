"""Runs handlers: one run of one message, or of one list, which is cut off at its deadline."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from core.database.rounds import UndoneError
from core.database.transaction import is_surrounded
from core.errors import BatchError, BrokerUnreachableError, DatabaseTimeoutError, HandlerTimeoutError, ReplyError
from core.handling.atomic_run import AtomicRun
from core.handling.deadlines import Deadlines
from core.handling.replies import check_response_topic, error_reply_to, reply_to, send, wants_reply
from core.handling.waiting import Awaited
from core.records.dedup import once

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.codecs.limits import Limits
    from core.context import Context, Publish
    from core.handling.delivery import Delivery
    from core.middleware import Handler
    from core.mqtt.publication import Publication
    from core.publisher import Outgoing
    from core.route import Dedup, RouteInfo
    from core.routing.registered import Route

_UNANSWERED = {Awaited.DATABASE: DatabaseTimeoutError, Awaited.BROKER: BrokerUnreachableError}
"""What a run raises that was cut off while it waited for somebody who is to blame."""


class Runner:
    """Runs handlers.

    - ``outgoing``: publishes what handlers publish and return.
    - ``timeout``: seconds for handlers whose routes name no timeout.
    - ``limits``: the limits of bodies.
    """

    def __init__(self, outgoing: Outgoing, timeout: float, limits: Limits) -> None:
        self._outgoing = outgoing
        self._timeout = timeout
        self._limits = limits
        self._deadlines = Deadlines()
        self._dedups: dict[str, Handler] = {}

    async def run(self, delivery: Delivery, outgoing: Outgoing | None = None) -> BaseException | None:
        """Run the handler of ``delivery`` once. Return what went wrong, or None. Raise nothing but a cancellation.

        ``outgoing`` publishes for this run, in the place of the runner's own.
        """
        route = delivery.route
        if delivery.refused is not None or route is None:
            return delivery.refused
        if route.options.batch is not None:
            refused, error = await self.run_many([delivery])
            if isinstance(error, BatchError):
                error = error.errors.get(0, error)
            return refused.get(0, error)
        call = route.call if route.options.dedup is None else self._once(route, route.options.dedup)
        run = _run_of(delivery, route)
        while True:
            context, refusal = self._context(delivery, route, outgoing)
            if refusal is not None:
                return refusal
            reply = None
            failed = await self._call(call, context, delivery, route.options.timeout or self._timeout, run)
            if failed is None and delivery.value is not None:
                failed, reply = _reply_of(delivery)
            if run is not None and run.unit is not None:
                failed = await run.end(failed)
                if isinstance(failed, UndoneError):
                    run = run.again(failed)
                    continue
            if failed is None and reply is not None:
                # Outside of the handler's time, because it waits for a connection for as long as that takes.
                await send(reply, outgoing or self._outgoing)
            return failed

    async def publish(self, publication: Publication) -> BaseException | None:
        """Publish once more what the broker did not take. Return what went wrong, or None."""
        try:
            await self._outgoing.send(publication)
        except Exception as error:  # noqa: BLE001 - what the broker refuses costs this message alone
            return error
        return None

    def _once(self, route: Route, key: Dedup) -> Handler:
        call = self._dedups.get(route.name)
        if call is None:
            call = self._dedups[route.name] = once(route.call, route.name, key)
        return call

    async def run_many(
        self, deliveries: Sequence[Delivery], outgoing: Outgoing | None = None
    ) -> tuple[dict[int, BaseException], BaseException | None]:
        """Run the handler of a batch route once, with all ``deliveries``. They are of one route.

        Return two things:

        - why messages could not be read, by their places. The handler did not get these messages;
        - what the handler raised for the others, or None.
        """
        first = deliveries[0]
        route = first.route
        assert route is not None  # noqa: S101 - only ever called for routes with batch
        run = _run_of(first, route)
        while True:
            refused: dict[int, BaseException] = {}
            contexts = []
            for index, delivery in enumerate(deliveries):
                context, refusal = self._context(delivery, route, outgoing)
                if refusal is None:
                    contexts.append(context)
                else:
                    refused[index] = refusal
            if not contexts:
                return refused, None
            replies: Sequence[Publication] = ()
            failed = await self._call(route.call, contexts, first, route.options.timeout or self._timeout, run)
            values, first.value = first.value, None
            if failed is None and values is not None:
                taken = [delivery for index, delivery in enumerate(deliveries) if index not in refused]
                failed, replies = _replies_of(taken, values)
            first.undone = isinstance(failed, BatchError) and failed.undone
            if run is not None and run.unit is not None:
                failed = await run.end(failed)
                if isinstance(failed, UndoneError):
                    run = run.again(failed)
                    continue
                first.undone = first.undone or (failed is not None and run.has_written)
            if failed is None:
                for reply in replies:
                    await send(reply, outgoing or self._outgoing)
            return refused, failed

    async def reply_error(self, delivery: Delivery, error: BaseException) -> None:
        """Reply that ``delivery`` could not be handled, where its route does that."""
        reply = error_reply_to(delivery, error)
        if reply is not None:
            await send(reply, self._outgoing)

    def _context(
        self, delivery: Delivery, route: Route, outgoing: Outgoing | None
    ) -> tuple[Context[Any] | None, BaseException | None]:
        """Return the context of one run, or what keeps the handler from getting one."""
        unanswerable = check_response_topic(delivery)
        if unanswerable is not None:
            return None, unanswerable
        try:
            payload = route.read(delivery.message, self._limits)
        except Exception as error:  # noqa: BLE001 - a codec may raise anything, which costs this message alone
            return None, error
        return context_of(delivery, route.info, payload, (outgoing or self._outgoing).publish), None

    async def _call(
        self, call: Handler, argument: Any, delivery: Delivery, timeout: float, run: AtomicRun | None
    ) -> BaseException | None:
        """Run ``call``, whose writes are part of ``run``. Return what went wrong, or None."""
        if run is None:
            return await self._timed(call, argument, delivery, timeout, None)
        run.enter()
        try:
            return await self._timed(call, argument, delivery, timeout, run)
        except BaseException as error:
            run.leave()
            await run.cut_off(error)
            raise
        finally:
            if run.open:
                run.leave()

    async def _timed(
        self, call: Handler, argument: Any, delivery: Delivery, timeout: float, part: AtomicRun | None
    ) -> BaseException | None:
        run = self._deadlines.begin(delivery, timeout, part)
        try:
            delivery.value = await call(argument)
        except asyncio.CancelledError as error:
            if delivery.timed_out and run.waited_for is not None:
                return _UNANSWERED[run.waited_for](
                    f"{run.waited_for.value} did not answer within the {timeout:g} s that the handler has"
                )
            if delivery.timed_out:
                return HandlerTimeoutError(f"the handler did not return within {timeout:g} s and was cut off")
            if run.task.cancelling():
                raise
            # Nobody cancelled this task: the cancellation comes from a task of the handler's own, so the handler failed.
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


def _run_of(delivery: Delivery, route: Route) -> AtomicRun | None:
    """Return a run whose writes hold together. None where each call stands by itself, or a transaction surrounds the run."""
    if not route.options.atomic or is_surrounded():
        return None
    # A message that failed, or met a fault of the infrastructure, costs the others nothing when it does so again.
    failed_before = delivery.attempt > 1 or delivery.again > 0 or delivery.refusals is not None
    return AtomicRun(route.name, alone=failed_before)


def _reply_of(delivery: Delivery) -> tuple[BaseException | None, Publication | None]:
    """Return what keeps the reply from being encoded, and the reply. None for one that nobody asked for."""
    try:
        return None, reply_to(delivery, delivery.value)
    except Exception as error:  # noqa: BLE001 - a codec may raise anything, which costs this message alone
        return error, None


def _replies_of(taken: Sequence[Delivery], values: Any) -> tuple[BaseException | None, list[Publication]]:
    """Return what is wrong with what the handler of a batch returned, and the replies, at most one for each message."""
    if not any(wants_reply(delivery) for delivery in taken):
        return None, []
    if not isinstance(values, list | tuple) or len(values) != len(taken):
        refusal = ReplyError(
            f"the handler got {len(taken)} messages that ask for replies, and returned {type(values).__name__}. Return "
            "None, or a list with a reply for each message"
        )
        return refusal, []
    replies = []
    for delivery, value in zip(taken, values, strict=True):
        delivery.value = value
        failed, reply = _reply_of(delivery)
        if failed is not None:
            return failed, []
        if reply is not None:
            replies.append(reply)
    return None, replies


def context_of(delivery: Delivery, route: RouteInfo, payload: Any, publish: Publish) -> Context[Any]:
    """Return the context of one run of ``delivery``.

    - ``delivery``: the message.
    - ``route``: the route that took it.
    - ``payload``: what its body holds.
    - ``publish``: publishes what the handler publishes.
    """
    message = delivery.message
    return {
        "topic": message.topic,
        "params": dict(delivery.params),
        "payload": payload,
        "body": message.body,
        "qos": message.qos,
        "retain": message.retain,
        "properties": message.properties or {},
        "received_at": datetime.fromtimestamp(delivery.first_at, UTC),
        "message_id": delivery.message_id,
        "attempt": delivery.attempt,
        "route": route,
        "state": {},
        "publish": publish,
    }
