"""What a handler gets: one dictionary for each run."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypedDict, TypeVar

from core.mqtt.message import Properties

if TYPE_CHECKING:
    from core.codecs import Limits
    from core.mqtt.message import Message
    from core.router import Route

P = TypeVar("P")


class Publish(Protocol):
    """Publishes a message: ``await context["publish"]("devices/1/commands", {"relay": "on"}, qos=1)``."""

    async def __call__(
        self, topic: str, payload: Any, *, qos: int = 0, retain: bool = False, properties: Properties | None = None
    ) -> None:
        """Publish; at QoS 1 return once the broker has acknowledged it.

        bytes are sent as they are, str in UTF-8, everything else as JSON. While there is no connection it waits for one.
        """


class Context(TypedDict, Generic[P]):
    """One run of a handler.

    ``payload`` is what the route's codec made of ``body``, or an object of its schema, as in ``Context[Reading]``.
    ``params`` are the topic's parameters, converted. ``received_at`` is the time of the first receipt, aware, in UTC.
    ``attempt`` counts the runs of this message from 1. ``message_id`` is unique for each received message and stays the
    same from run to run. ``state`` is for middleware.
    """

    topic: str
    params: dict[str, Any]
    payload: P
    body: bytes
    qos: int
    retain: bool
    properties: Properties
    received_at: datetime
    message_id: str
    attempt: int
    route: Route
    state: dict[str, Any]
    publish: Publish


_process = secrets.token_hex(6)
_numbers = count(1)


def new_message_id() -> str:
    """Give an identifier that no other message has, of this process or any other."""
    return f"{_process}-{next(_numbers)}"


def build(
    message: Message,
    route: Route,
    params: dict[str, Any],
    received_at: float,
    message_id: str,
    attempt: int,
    publish: Publish,
    limits: Limits,
) -> Context[Any]:
    """Give the context of one run; ``received_at`` is in seconds since the epoch. Raises PayloadError."""
    return {
        "topic": message.topic,
        "params": dict(params),
        "payload": route.read(message, limits),
        "body": message.body,
        "qos": message.qos,
        "retain": message.retain,
        "properties": message.properties or {},
        "received_at": datetime.fromtimestamp(received_at, UTC),
        "message_id": message_id,
        "attempt": attempt,
        "route": route,
        "state": {},
        "publish": publish,
    }
