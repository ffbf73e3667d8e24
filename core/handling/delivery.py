"""One message on its way through the worker."""

from __future__ import annotations

import secrets
from itertools import count
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from core.errors import MalformedError, MessageError, NoRouteError
from core.retry import Pauses

if TYPE_CHECKING:
    from collections.abc import Collection

    from core.handling.end import End
    from core.mqtt.message import Message
    from core.records.packets import Record
    from core.router import Router
    from core.routing.registered import Route

FIRST_PAUSE = 0.1
"""Seconds before a message runs again that the database refuses while it answers others."""
MAX_PAUSE = 5.0
"""Seconds between two such runs at the most."""
_process = secrets.token_hex(6)
_numbers = count(1)


class Refusals:
    """What is remembered of a message that met faults of the infrastructure.

    - ``answers``: what the database had answered in all when the message last met one.
    - ``done``: how many messages of its route were done by then. None while the fault may be everybody's.
    - ``outlived``: how often others of its route were done between two of its failures.
    - ``since``: when it failed first.
    - ``pauses``: those between its runs.
    """

    __slots__ = ("answers", "done", "outlived", "pauses", "since")

    def __init__(self) -> None:
        self.answers = 0
        self.done: int | None = None
        self.outlived = 0
        self.since = monotonic()
        self.pauses = Pauses(FIRST_PAUSE, MAX_PAUSE, jitter=0.25)


class Delivery:
    """A message in hand: what it is, which route takes it, how often it ran, and what its end is.

    - ``message``: the message. When the connection is lost and the broker sends the message again, the redelivered one
      takes its place, so that it is acknowledged on the new connection.
    - ``message_id``: an identifier that no other message has, in this process or any other.
    - ``route``: the route that takes it. None where no route does.
    - ``params``: the topic's parameters.
    - ``refused``: why the message must not run: it is malformed, no route takes it, or its ordering key cannot be made.
      None otherwise.
    - ``nearest``: where no route takes it, the route that would if the converters of its parameters took everything.
    - ``attempt``: the number of its latest run, counted from 1.
    - ``again``: how often the database has asked for its transaction again.
    - ``first_at``: the time of its first receipt, in seconds since the epoch.
    - ``record``: the record of a transaction whose commit got no answer.
    - ``refusals``: the faults of the infrastructure that it met. None before the first.
    - ``behind``: the messages that wait behind it, because they have its ordering key.
    - ``stored``: its number on the disk, where it waited for its route. None where it comes from the broker.
    - ``timed_out``: whether its run was cut off at its deadline.
    - ``undone``: whether what its latest run wrote was undone, where it ran in a list.
    - ``value``: what the handler returned.
    - ``end``: how it ended. None before that.
    - ``settled``: whether it may be acknowledged.
    """

    __slots__ = (
        "again",
        "attempt",
        "behind",
        "end",
        "first_at",
        "message",
        "message_id",
        "nearest",
        "params",
        "record",
        "refusals",
        "refused",
        "route",
        "settled",
        "stored",
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
        self.refusals: Refusals | None = None
        self.stored: int | None = None
        self.behind: Collection[object] = ()
        self.timed_out = False
        self.undone = False
        self.value: Any = None


def routed(router: Router, message: Message) -> Delivery:
    """Return ``message`` with the route that takes it, or with the reason why none does."""
    if message.fault is not None:
        return Delivery(message, None, {}, message.fault)
    try:
        route, params = router.match(message.topic)
    except NoRouteError as error:
        return Delivery(message, None, {}, error, router.nearest(message.topic))
    except MalformedError as error:
        return Delivery(message, None, {}, error)
    return Delivery(message, route, params)
