"""The context that a handler gets: one dictionary for each run."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypedDict, TypeVar

from core.mqtt.message import Properties

if TYPE_CHECKING:
    from core.route import RouteInfo

P = TypeVar("P")


class Publish(Protocol):
    """Publishes a message: ``await context["publish"]("devices/1/commands", {"relay": "on"}, qos=1)``."""

    async def __call__(
        self, topic: str, payload: Any, *, qos: int = 0, retain: bool = False, properties: Properties | None = None
    ) -> None:
        """Publish a message. At QoS 1, return once the broker has acknowledged it.

        - ``topic``: where to.
        - ``payload``: bytes are sent as they are, str in UTF-8, everything else as JSON.
        - ``qos``: 0 or 1. By default 0.
        - ``retain``: whether the broker keeps the message for later subscribers. By default it does not.
        - ``properties``: those of MQTT 5 (3.3.2.3). On MQTT 3.1.1 they are left out.

        While there is no connection, wait for one. Raise TopicError, PayloadError and BrokerRefusedError.
        """


class Context(TypedDict, Generic[P]):
    """One run of a handler.

    - ``topic``, ``body``, ``qos``, ``retain``, ``properties``: the message as it came in.
    - ``params``: the topic's parameters, converted.
    - ``payload``: what the route's codec made of ``body``, or an object of its schema, as in ``Context[Reading]``.
    - ``received_at``: the time of the first receipt, aware, in UTC.
    - ``message_id``: unique for each received message. It stays the same from run to run.
    - ``attempt``: the number of this run, counted from 1.
    - ``route``: the route that took the message.
    - ``state``: for middleware.
    - ``publish``: publishes a message.
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
    route: RouteInfo
    state: dict[str, Any]
    publish: Publish
