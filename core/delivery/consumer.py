"""Takes messages in: bounds what is in hand, drops redeliveries it still holds, keeps the order."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from core.delivery.batches import Batches
from core.delivery.lanes import Lanes
from core.delivery.transactions import Units
from core.errors import MessageError, NoRouteError, one_line
from core.handling.delivery import Delivery

if TYPE_CHECKING:
    from collections.abc import Hashable

    from core.delivery.acknowledge import Acknowledgements
    from core.delivery.copies import Copies
    from core.delivery.ledger import Ledger
    from core.delivery.transactions import ExactlyOnce
    from core.handling.dispatch import Dispatch
    from core.mqtt.message import Message
    from core.router import Router
    from core.transport.connection import Connack

log = logging.getLogger("routemq.delivery")

MOST_BYTES = 64 * 1024 * 1024
"""Bodies in hand, in bytes, beyond which the socket is not read, however few messages they are."""


class Reading(Protocol):
    """What the consumer asks of a session: to stop reading its socket, and to read it again."""

    def pause_reading(self) -> None:
        """Stop reading, on later connections too."""

    def resume_reading(self) -> None:
        """Read again."""


class Consumer:
    """The listener of the worker's session (see ``core.transport.connection.Listener``).

    Beyond ``limit`` messages in hand, or 64 MiB of them, or ``limit`` that wait for their acknowledgement behind a slow
    one, the socket is no longer read; it is read again once an eighth of that has been dealt with. A single read of the
    socket may take the number past the limit, by what it brought. ``copies`` tells apart the copies of one message.
    """

    def __init__(
        self,
        router: Router,
        ledger: Ledger,
        acknowledgements: Acknowledgements,
        dispatch: Dispatch,
        reading: Reading,
        limit: int,
        copies: Copies | None = None,
        exactly_once: ExactlyOnce | None = None,
    ) -> None:
        self._match = router.match
        self._ledger = ledger
        self._acknowledgements = acknowledgements
        self._dispatch = dispatch
        self._lanes = Lanes(self._deliver)
        self._batches = Batches(dispatch, self._ended)
        self._processed = None if exactly_once is None else exactly_once.processed
        self._units = None if exactly_once is None else Units(exactly_once, dispatch, self._ended)
        self._reading = reading
        self._limit = limit
        # None where no topic filters overlap, which is nearly always.
        self._copies = copies or None
        self._low = limit - max(limit // 8, 1)
        self._bytes = 0
        self._paused = False
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()

    # -- told by the session -------------------------------------------------------------------------------------------

    def receive(self, message: Message) -> None:
        """Take one message in."""
        ledger = self._ledger
        ledger.received += 1
        if self._stopping:
            # Read before the socket was paused: unacknowledged, so the broker sends it again.
            ledger.abandoned += 1
            return
        if message.qos and self._acknowledgements.rejoin(message):
            ledger.deduplicated += 1
            return
        further = self._copies is not None and self._copies.is_further(message)
        if further or (self._processed is not None and self._processed.is_known(message)):
            ledger.deduplicated += 1
            self._pass_over(message)
            return
        delivery, key = self._accept(message)
        ledger.in_hand += 1
        if ledger.in_hand == 1:
            self._idle.clear()
        self._bytes += len(message.body)
        if message.qos:
            self._acknowledgements.expect(delivery)
            if delivery.route is not None and delivery.route.options.delivery == "at_most_once":
                self._acknowledgements.settle(delivery)
        options = delivery.route.options if delivery.route is not None else None
        if self._units is not None and options is not None and options.delivery == "exactly_once":
            self._units.put(key, delivery)
        elif delivery.route is not None and options is not None and options.batch is not None:
            self._batches.put(delivery.route, key, delivery)
        else:
            self._lanes.put(key, delivery)
        if ledger.in_hand > self._limit or self._bytes > MOST_BYTES or len(self._acknowledgements) > self._limit:
            self._pause()

    def _pass_over(self, message: Message) -> None:
        """Acknowledge a message that is not to be handled: a further copy, or one that was committed before."""
        if message.qos:
            delivery = Delivery(message, None, {})
            self._acknowledgements.expect(delivery)
            self._acknowledgements.settle(delivery)

    def _accept(self, message: Message) -> tuple[Delivery, Hashable]:
        """Give ``message`` with the route that takes it, and its ordering key."""
        try:
            route, params = self._match(message.topic)
        except NoRouteError as error:
            return Delivery(message, None, {}, error), message.topic
        try:
            return Delivery(message, route, params), route.key(message, params)
        except Exception as error:  # noqa: BLE001 - a user's callable; what it raises costs this message alone
            refused = MessageError(f"order_by of the route raised {one_line(error)}")
            return Delivery(message, route, params, refused), message.topic

    def connected(self, connack: Connack) -> None:
        """Take note of a new connection."""
        self._acknowledgements.resume(session_present=connack.session_present)
        if self._processed is not None:
            self._processed.connected(session_present=connack.session_present)

    def disconnected(self) -> None:
        """Take note that nothing in hand can be acknowledged until it was delivered again."""
        self._acknowledgements.void()
        self._resume()

    # -- bounds --------------------------------------------------------------------------------------------------------

    async def _deliver(self, delivery: Delivery) -> None:
        await self._dispatch.deliver(delivery)
        self._ended(delivery)

    def _ended(self, delivery: Delivery) -> None:
        """Take note that ``delivery`` has its end."""
        ledger = self._ledger
        ledger.in_hand -= 1
        self._bytes -= len(delivery.message.body)
        if self._paused:
            # Behind the acknowledgements that leave at the end of this turn.
            asyncio.get_running_loop().call_soon(self._resume)
        if ledger.in_hand == 0:
            self._idle.set()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._reading.pause_reading()

    def _resume(self) -> None:
        enough = self._ledger.in_hand <= self._low and len(self._acknowledgements) <= self._low
        if self._paused and enough and self._bytes <= MOST_BYTES // 2 and not self._stopping:
            self._paused = False
            self._reading.resume_reading()

    # -- stop ----------------------------------------------------------------------------------------------------------

    async def stop(self, timeout: float) -> None:
        """Take nothing in any more and finish what is in hand, for ``timeout`` seconds at most; then cut it off.

        What is cut off stays unacknowledged, so that the broker sends it again.
        """
        self._stopping = True
        self._pause()
        if self._ledger.in_hand:
            try:
                async with asyncio.timeout(timeout):
                    await self._idle.wait()
            except TimeoutError:
                log.warning("%d messages in hand are cut off, the broker sends them again", self._ledger.in_hand)
                await self.cut()
        self._acknowledgements.flush()
        self._dispatch.stop()

    async def cut(self) -> None:
        """Cut off whatever is in hand."""
        await self._lanes.cut()
        await self._batches.cut()
        if self._units is not None:
            await self._units.cut()
        self._ledger.abandoned += self._ledger.in_hand
        self._ledger.in_hand = 0
        self._idle.set()
