"""The only place that acknowledges: in order of receipt (MQTT 5, 4.6), many PUBACKs in one write."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from core.session.identity import Identity, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from core.handling.delivery import Delivery
    from core.mqtt.message import Message


class Acknowledgements:
    """The QoS 1 messages of the current connection that are not acknowledged yet, in order of receipt.

    PUBACKs leave in that order (MQTT 5, 4.6). Those of all messages that are settled in one turn of the event loop leave
    together at its end.

    After a reconnect the broker sends the unacknowledged messages again, under the packet identifiers that they had
    (MQTT 5, 4.4) and with DUP set. ``rejoin`` recognises those that are still known, so that none of them runs twice. A
    message without DUP is a new one: it takes the identifier from the one that had it. So is one that a handler could tell
    from the known one. Of those that look the same, as many are acknowledged as have run, whichever joins which.

    - ``send``: sends a PUBACK for each message that it is given.
    - ``identity``: knows whether the broker's identifiers can be trusted, and hears of those that cannot.
    """

    def __init__(self, send: Callable[[Sequence[Message]], None], identity: Identity) -> None:
        self._send = send
        self._identity = identity
        self._pending: deque[Delivery] = deque()
        self._earlier: dict[int, Delivery] = {}
        self._scheduled = False
        # Whether a message without DUP has come on this connection while earlier ones were awaited.
        self._new_came = False

    def __len__(self) -> int:
        """Return the number of messages received on this connection and not acknowledged yet."""
        return len(self._pending)

    def expect(self, delivery: Delivery) -> None:
        """Record a received QoS 1 message. This must happen before the next message is received."""
        self._pending.append(delivery)

    def settle(self, delivery: Delivery) -> None:
        """Record that ``delivery`` may be acknowledged. Its PUBACK leaves once all messages before it are settled."""
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
        """Record that the connection is lost. Nothing that was received on it can be acknowledged any more."""
        if self._new_came:
            # A broker sends old messages before new ones. What has not come again by then does not come any more.
            self._forget()
        for delivery in self._pending:
            self._earlier[delivery.message.packet_id] = delivery
        self._pending.clear()
        if not self._identity.joined:
            self._forget()

    def resume(self, *, session_present: bool) -> None:
        """Record a new connection. Without the old session, the broker sends nothing from the old connection again."""
        self._new_came = False
        if not session_present:
            self._forget()

    def _forget(self) -> None:
        """Forget the messages of earlier connections. Their identifiers are free for others, and are not recorded."""
        for delivery in self._earlier.values():
            delivery.message.packet_id = 0
        self._earlier.clear()

    def rejoin(self, message: Message) -> bool:
        """Return whether ``message`` is the redelivery of a known one. The known one then waits for its PUBACK anew."""
        if not self._earlier:
            return False
        if not message.dup:
            self._new_came = True
        delivery = self._earlier.pop(message.packet_id, None)
        if delivery is None:
            return False
        first = delivery.message
        same = first.looks_like(message)
        if not (same and message.dup):
            # Its identifier is another message's now.
            first.packet_id = 0
            if message.dup:
                # The broker numbers messages anew when it sends them again.
                self._forget()
                self._identity.doubt(Verdict.RENUMBERS)
            else:
                self._identity.doubt(Verdict.NO_DUP if same else Verdict.REUSES)
            return False
        delivery.message = message
        self._pending.append(delivery)
        if delivery.settled:
            self.settle(delivery)
        return True
