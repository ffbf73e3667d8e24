"""One message on its way through the worker."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Any

from core.context import new_message_id

if TYPE_CHECKING:
    from core.errors import MessageError
    from core.mqtt.message import Message
    from core.records.packets import Record
    from core.route import Route


class Delivery:
    """A message in hand: what it is, which route takes it, how often it ran, and whether it has its end.

    ``refused`` is set for a message that is not to be run: no route takes it, or its ordering key cannot be made.
    ``message`` is exchanged for the redelivered one when the connection was lost meanwhile, so that its acknowledgement
    goes out on the new connection. ``record`` is that of a transaction whose commit was not answered. ``first_at`` is the
    time of receipt, in seconds since the epoch. ``value`` is what the handler returned.
    """

    __slots__ = (
        "again",
        "attempt",
        "first_at",
        "message",
        "message_id",
        "params",
        "record",
        "refused",
        "route",
        "settled",
        "timed_out",
        "value",
    )

    def __init__(
        self,
        message: Message,
        route: Route | None,
        params: dict[str, Any],
        refused: MessageError | None = None,
    ) -> None:
        self.message = message
        self.route = route
        self.params = params
        self.refused = refused
        self.attempt = 0
        self.again = 0
        self.first_at = time()
        self.message_id = new_message_id()
        self.settled = False
        self.record: Record | None = None
        self.timed_out = False
        self.value: Any = None
