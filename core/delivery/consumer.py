"""Takes messages in, keeps their order, and counts and acknowledges each once it has its end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from core.delivery.batches import Batches
from core.delivery.lanes import Lanes
from core.delivery.transactions import Transactions
from core.errors import MessageError, one_line
from core.handling.delivery import Delivery, routed
from core.handling.end import End
from core.mqtt.topics import matches
from core.session.identity import PROBE_TOPICS

if TYPE_CHECKING:
    from collections.abc import Hashable

    from core.delivery.acknowledge import Acknowledgements
    from core.delivery.ledger import Ledger
    from core.delivery.transactions import ExactlyOnce
    from core.delivery.window import Window
    from core.handling.dispatch import Dispatch
    from core.mqtt.message import Message
    from core.router import Router
    from core.routing.overlaps import Copies
    from core.transport.connection import Connack

log = logging.getLogger("routemq.delivery")


class Intake:
    """What a consumer puts each received message into.

    - ``ledger``: counts it.
    - ``acknowledgements``: acknowledges it once it has its end.
    - ``window``: bounds how much is in hand.
    - ``copies``: tells apart the copies of one message.
    """

    __slots__ = ("acknowledgements", "copies", "ledger", "window")

    def __init__(self, ledger: Ledger, acknowledgements: Acknowledgements, window: Window, copies: Copies) -> None:
        self.ledger = ledger
        self.acknowledgements = acknowledgements
        self.window = window
        # None where no topic filters overlap, which is nearly always.
        self.copies = copies or None


class Consumer:
    """The listener of the worker's session (see ``core.transport.connection.Listener``).

    Nothing else counts the end of a message, or has a message acknowledged.

    - ``router``: knows the route of each topic.
    - ``dispatch``: brings messages to their end.
    - ``intake``: what each message is put into.
    - ``exactly_once``: what exactly-once routes need. None where there are no such routes.
    """

    def __init__(self, router: Router, dispatch: Dispatch, intake: Intake, exactly_once: ExactlyOnce | None) -> None:
        self._router = router
        self._dispatch = dispatch
        self._ledger = intake.ledger
        self._acknowledgements = intake.acknowledgements
        self._window = intake.window
        self._copies = intake.copies
        self._retries = dispatch.pauses
        self._hears_probes = any(
            matches(subscription.topic_filter, PROBE_TOPICS + "x") for subscription in router.subscriptions()
        )
        self._lanes = Lanes(self._deliver)
        self._batches = Batches(dispatch, self._ended)
        self._packets = None if exactly_once is None else exactly_once.packets
        self._transactions = None if exactly_once is None else Transactions(exactly_once, dispatch, self._ended)
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()

    # -- told by the session -------------------------------------------------------------------------------------------

    def receive(self, message: Message) -> None:
        """Take in one message. Count it, and put it where its route's messages wait."""
        ledger = self._ledger
        ledger.received += 1
        if self._stopping:
            # Read before the socket was paused: unacknowledged, so the broker sends it again.
            ledger.count(End.ABANDONED)
            return
        if message.qos and self._acknowledgements.rejoin(message):
            ledger.count(End.DEDUPLICATED)
            return
        if (self._packets is not None and self._packets.receive(message)) or (
            self._copies is not None and self._copies.is_further(message)
        ):
            ledger.count(End.DEDUPLICATED)
            self._pass_over(message)
            return
        if self._hears_probes and message.topic.startswith(PROBE_TOPICS):
            # A question of a worker to the broker, which a wide topic filter brings too.
            ledger.count(End.DROPPED)
            self._pass_over(message)
            return
        delivery, key = self._accept(message)
        ledger.in_hand += 1
        if ledger.in_hand == 1:
            self._idle.clear()
        route = delivery.route
        options = route.options if route is not None else None
        if message.qos:
            self._acknowledgements.expect(delivery)
            if options is not None and options.delivery == "at_most_once":
                self._acknowledgements.settle(delivery)
        if self._transactions is not None and options is not None and options.delivery == "exactly_once":
            self._transactions.put(key, delivery)
        elif route is not None and options is not None and options.batch is not None:
            self._batches.put(route, key, delivery)
        else:
            self._lanes.put(key, delivery)
        self._window.take(len(message.body))
        if self._retries and self._window.crowded:
            self._retries.make_room()

    def _pass_over(self, message: Message) -> None:
        """Acknowledge a message that is not to be handled."""
        if message.qos:
            delivery = Delivery(message, None, {})
            self._acknowledgements.expect(delivery)
            self._acknowledgements.settle(delivery)

    def _accept(self, message: Message) -> tuple[Delivery, Hashable]:
        """Return ``message`` with the route that takes it, and its ordering key."""
        delivery = routed(self._router, message)
        route = delivery.route
        if route is None:
            return delivery, message.topic
        try:
            return delivery, route.key(message, delivery.params)
        except Exception as error:  # noqa: BLE001 - what a user's callable raises costs this message alone
            delivery.refused = MessageError(f"order_by of the route raised {one_line(error)}")
            return delivery, message.topic

    async def connecting(self) -> None:
        """Find out what the broker does with packet identifiers, if exactly-once routes need to know."""
        if self._packets is not None:
            await self._packets.identity.ask()

    async def subscribing(self) -> None:
        """Have the session recorded, before anything new can come in it. Raise ConnectionLostError if that fails."""
        if self._packets is not None:
            await self._packets.identity.ask()
            await self._packets.ready()

    def connected(self, connack: Connack) -> None:
        """Record a new connection."""
        self._acknowledgements.resume(session_present=connack.session_present)
        if self._packets is not None:
            self._packets.connected(session_present=connack.session_present)

    def disconnected(self) -> None:
        """Record that the connection is lost. Nothing in hand can be acknowledged until the broker sends it again."""
        self._acknowledgements.void()
        self._window.resume()

    # -- the end of a message ------------------------------------------------------------------------------------------

    async def _deliver(self, delivery: Delivery) -> None:
        await self._dispatch.deliver(delivery)
        self._ended(delivery)

    def _ended(self, delivery: Delivery) -> None:
        """Count the end that stands on ``delivery``, and have the message acknowledged."""
        ledger, end = self._ledger, delivery.end
        assert end is not None  # noqa: S101 - a message without an end is neither counted nor acknowledged
        ledger.count(end)
        ledger.in_hand -= 1
        self._acknowledgements.settle(delivery)
        self._window.release(len(delivery.message.body))
        if self._window.paused:
            # After the acknowledgements that leave at the end of this turn.
            asyncio.get_running_loop().call_soon(self._window.resume)
        if ledger.in_hand == 0:
            self._idle.set()

    # -- stop ----------------------------------------------------------------------------------------------------------

    async def stop(self, timeout: float) -> None:
        """Take in no more messages, and finish those in hand. After ``timeout`` seconds cut them off.

        What is cut off stays unacknowledged, so that the broker sends it again.
        """
        self._stopping = True
        self._window.close()
        if self._ledger.in_hand:
            try:
                async with asyncio.timeout(timeout):
                    await self._idle.wait()
            except TimeoutError:
                log.warning("%d messages in hand are cut off. The broker sends them again", self._ledger.in_hand)
                await self.cut()
        self._acknowledgements.flush()
        self._dispatch.stop()

    async def cut(self) -> None:
        """Cut off whatever is in hand."""
        self._dispatch.cut()
        await self._lanes.cut()
        await self._batches.cut()
        if self._transactions is not None:
            await self._transactions.cut()
        self._ledger.count(End.ABANDONED, self._ledger.in_hand)
        self._ledger.in_hand = 0
        self._idle.set()
