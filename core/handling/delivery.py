"""One message on its way through the worker."""

from __future__ import annotations

import secrets
from itertools import count
from time import time
from typing import TYPE_CHECKING, Any

from core.errors import MessageError, NoRouteError

if TYPE_CHECKING:
    from core.handling.end import End
    from core.mqtt.message import Message
    from core.records.packets import Record
    from core.router import Router
    from core.routing.registered import Route

_process = secrets.token_hex(6)
_numbers = count(1)


class Delivery:
    """A message in hand: what it is, which route takes it, how often it ran, and what its end is.

    - ``message``: the message. When the connection is lost and the broker sends the message again, the redelivered one
      takes its place, so that it is acknowledged on the new connection.
    - ``message_id``: an identifier that no other message has, in this process or any other.
    - ``route``: the route that takes it. None where no route does.
    - ``params``: the topic's parameters.
    - ``refused``: why the message must not run: no route takes it, or its ordering key cannot be made. None otherwise.
    - ``nearest``: where no route takes it, the route that would if the converters of its parameters took everything.
    - ``attempt``: the number of its latest run, counted from 1.
    - ``again``: how often the database has asked for its transaction again.
    - ``first_at``: the time of its first receipt, in seconds since the epoch.
    - ``record``: the record of a transaction whose commit got no answer.
    - ``timed_out``: whether its run was cut off at its deadline.
    - ``undone``: whether what its latest run wrote was undone, where it ran in a list.
    - ``value``: what the handler returned.
    - ``end``: how it ended. None before that.
    - ``settled``: whether it may be acknowledged.
    """

    __slots__ = (
        "again",
        "attempt",
        "end",
        "first_at",
        "message",
        "message_id",
        "nearest",
        "params",
        "record",
        "refused",
        "route",
        "settled",
        "timed_out",
        "undone",
        "value",
    )

    def __init__(
        self,
        message: Message,
        route: Route | None,
        params: dict[str, Any],
        refused: MessageError | None = None,
        nearest: Route | None = None,
    ) -> None:
        self.message = message
        self.route = route
        self.params = params
        self.refused = refused
        self.nearest = nearest
        self.attempt = 0
        self.again = 0
        self.first_at = time()
        self.message_id = f"{_process}-{next(_numbers)}"
        self.end: End | None = None
        self.settled = False
        self.record: Record | None = None
        self.timed_out = False
        self.undone = False
        self.value: Any = None


def routed(router: Router, message: Message) -> Delivery:
    """Return ``message`` with the route that takes it, or with the reason why none does."""
    try:
        route, params = router.match(message.topic)
    except NoRouteError as error:
        return Delivery(message, None, {}, error, router.nearest(message.topic))
    return Delivery(message, route, params)
