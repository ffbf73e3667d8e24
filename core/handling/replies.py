"""What a handler returns is the reply: to the message's response topic, or to the topic that its route names."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from core.codecs import JSON
from core.errors import BrokerRefusedError, MessageError, PayloadError, SchemaError, TopicError, one_line
from core.middleware import Passed
from core.mqtt.publication import Publication
from core.mqtt.topics import check_topic

if TYPE_CHECKING:
    from core.handling.delivery import Delivery
    from core.mqtt.message import Properties
    from core.publisher import Outgoing

log = logging.getLogger("routemq.delivery")


def check_response_topic(delivery: Delivery) -> MessageError | None:
    """Give what is wrong with the response topic of ``delivery``: it must not have wildcards (MQTT 5, 3.3.2.3.5)."""
    properties = delivery.message.properties
    if properties is None or "response_topic" not in properties:
        return None
    try:
        check_topic(properties["response_topic"])
    except TopicError as error:
        return MessageError(f"the response topic of the message is none: {error}")
    return None


def wants_reply(delivery: Delivery) -> bool:
    """Say whether there is a topic to reply to."""
    return _topic(delivery) is not None


def reply_to(delivery: Delivery, value: Any) -> Publication | None:
    """Give the reply that takes ``value`` back to where ``delivery`` came from; None where nobody asked for one.

    It has the QoS of the message and its correlation data, and is encoded by the route's codec. Raises PayloadError where
    that cannot write ``value``.
    """
    route = delivery.route
    topic = None if value is None or route is None or isinstance(value, Passed) else _topic(delivery)
    if topic is None or route is None:
        return None
    return _made(delivery, topic, route.encode(value), route.content_type)


def error_reply_to(delivery: Delivery, error: BaseException) -> Publication | None:
    """Give the reply that tells of ``error``, where the route has ``reply_errors``; None where nobody asked for one.

    It is the route's codec's ``{"error": {"type": ..., "message": ...}}``, or JSON's where that codec cannot write it.
    """
    route = delivery.route
    if route is None or not route.options.reply_errors or check_response_topic(delivery) is not None:
        return None
    topic = _topic(delivery)
    if topic is None:
        return None
    said: dict[str, Any] = {"type": type(error).__name__, "message": one_line(error, name=False)}
    if isinstance(error, SchemaError):
        said["fields"] = error.report.splitlines()
    try:
        return _made(delivery, topic, route.encode({"error": said}), route.content_type)
    except PayloadError:
        return _made(delivery, topic, JSON.encode({"error": said}), JSON.content_type)


def _topic(delivery: Delivery) -> str | None:
    properties, route = delivery.message.properties, delivery.route
    if properties is not None and "response_topic" in properties:
        return properties["response_topic"]
    if route is None or route.reply_topic is None:
        return None
    return route.reply_topic(delivery.params)


def _made(delivery: Delivery, topic: str, body: bytes, content_type: str | None) -> Publication:
    told: Properties = {}
    properties = delivery.message.properties
    # Who names no response topic may know no properties: rumqttd, for one, breaks 3.1.1 clients off that would get some.
    if properties is not None and "response_topic" in properties:
        if "correlation_data" in properties:
            told["correlation_data"] = properties["correlation_data"]
        if content_type is not None:
            told["content_type"] = content_type
    return Publication(topic, body, delivery.message.qos, properties=told or None)


async def send(reply: Publication, outgoing: Outgoing) -> None:
    """Publish ``reply``. What the broker refuses is told in the log and dropped: the message itself is handled."""
    try:
        await outgoing.send(reply)
    except BrokerRefusedError as error:
        log.error("a reply was refused and is dropped: %s [topic %s]", one_line(error), reply.topic)  # noqa: TRY400
