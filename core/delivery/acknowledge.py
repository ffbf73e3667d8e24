"""The only place that acknowledges: in order of receipt (MQTT 5, 4.6), many PUBACKs in one write."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from core.handling.delivery import Delivery
    from core.mqtt.message import Message


class Acknowledgements:
    """The QoS 1 messages of the current connection that are not acknowledged yet, in order of receipt.

    ``send`` takes messages whose PUBACKs are to be sent now, in order. Whatever is settled in one turn of the event loop
    leaves together at its end. After a reconnect the broker sends the unacknowledged ones again, under the packet
    identifiers that they had (MQTT 5, 4.4): ``rejoin`` finds those still known, so that none of them runs twice.
    """

    def __init__(self, send: Callable[[Sequence[Message]], None]) -> None:
        self._send = send
        self._pending: deque[Delivery] = deque()
        self._earlier: dict[int, Delivery] = {}
        self._scheduled = False

    def __len__(self) -> int:
        """Give the number of messages received on this connection and not acknowledged yet."""
        return len(self._pending)

    def expect(self, delivery: Delivery) -> None:
        """Take note of a received QoS 1 message, before the next one is received."""
        self._pending.append(delivery)

    def settle(self, delivery: Delivery) -> None:
        """Take note that the outcome of ``delivery`` is durable: its PUBACK leaves once all before it are settled."""
        delivery.settled = True
        if not self._scheduled and self._pending and self._pending[0].settled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Send the PUBACKs that may leave now."""
        self._scheduled = False
        pending = self._pending
        messages = []
        while pending and pending[0].settled:
            messages.append(pending.popleft().message)
        if messages:
            self._send(messages)

    def void(self) -> None:
        """Take note that the connection is lost: nothing received on it can be acknowledged any more."""
        for delivery in self._pending:
            self._earlier[delivery.message.packet_id] = delivery
        self._pending.clear()

    def resume(self, *, session_present: bool) -> None:
        """Take note of a new connection; without its old session the broker sends nothing of the old one again."""
        if not session_present:
            self._earlier.clear()

    def rejoin(self, message: Message) -> bool:
        """Say whether ``message`` is the redelivery of a known one, which then waits for its acknowledgement anew."""
        if not self._earlier:
            return False
        delivery = self._earlier.pop(message.packet_id, None)
        if delivery is None:
            return False
        first = delivery.message
        # The identifier alone proves nothing: a broker may have dropped the message and used the number again.
        if first.topic != message.topic or first.body != message.body:
            return False
        delivery.message = message
        self._pending.append(delivery)
        if delivery.settled:
            self.settle(delivery)
        return True
