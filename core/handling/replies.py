"""Replies: what a handler returns goes to the response topic of the message, or to the topic that its route names."""

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
    """Return what is wrong with the response topic of ``delivery``, or None.

    A response topic must not have wildcards (MQTT 5, 3.3.2.3.5).
    """
    properties = delivery.message.properties
    if properties is None or "response_topic" not in properties:
        return None
    try:
        check_topic(properties["response_topic"])
    except TopicError as error:
        return MessageError(f"the response topic of the message cannot be used: {error}")
    return None


def wants_reply(delivery: Delivery) -> bool:
    """Return whether there is a topic to reply to."""
    return _topic(delivery) is not None


def reply_to(delivery: Delivery, value: Any) -> Publication | None:
    """Return the reply to ``delivery`` that holds ``value``, or None where nobody asked for one.

    It has the QoS of the message and its correlation data. It is encoded by the route's codec.

    Raise PayloadError where the codec cannot encode ``value``.
    """
    route = delivery.route
    topic = None if value is None or route is None or isinstance(value, Passed) else _topic(delivery)
    if topic is None or route is None:
        return None
    return _made(delivery, topic, route.encode(value), route.content_type)


def error_reply_to(delivery: Delivery, error: BaseException) -> Publication | None:
    """Return the reply that tells of ``error``. None without ``reply_errors``, or where nobody asked for one.

    It holds ``{"error": {"type": ..., "message": ...}}``, encoded by the route's codec. JSON takes its place where that
    codec cannot encode it.
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
    # A device that names no response topic may not know properties: rumqttd breaks off 3.1.1 clients that would get some.
    if properties is not None and "response_topic" in properties:
        if "correlation_data" in properties:
            told["correlation_data"] = properties["correlation_data"]
        if content_type is not None:
            told["content_type"] = content_type
    return Publication(topic, body, delivery.message.qos, properties=told or None)


async def send(reply: Publication, outgoing: Outgoing) -> None:
    """Publish ``reply``. Log and drop one that the broker refuses, because the message itself is handled."""
    try:
        await outgoing.send(reply)
    except BrokerRefusedError as error:
        log.error("the broker refused a reply, which is dropped: %s [topic %s]", one_line(error), reply.topic)  # noqa: TRY400
