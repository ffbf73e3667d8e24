"""PUBLISH properties: the specification's names, and those of the codec mqtt5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import mqtt5

    from core.mqtt.message import Properties

_OPTIONS = {
    "payload_format_indicator": "payload_format_indicator",
    "message_expiry_interval": "message_expiry_interval",
    "content_type": "content_type",
    "response_topic": "response_topic",
    "correlation_data": "correlation_data",
    "user_property": "user_properties",
}


def from_packet(packet: mqtt5.PublishPacket) -> Properties | None:
    """Return the properties under the specification's names, or None where there are none."""
    found: dict[str, Any] = {}
    if packet.payload_format_indicator:
        found["payload_format_indicator"] = packet.payload_format_indicator
    if packet.message_expiry_interval is not None:
        found["message_expiry_interval"] = packet.message_expiry_interval
    if packet.content_type is not None:
        found["content_type"] = packet.content_type
    if packet.response_topic is not None:
        found["response_topic"] = packet.response_topic
    if packet.correlation_data is not None:
        found["correlation_data"] = packet.correlation_data
    identifiers = packet.subscription_ids
    if identifiers:
        found["subscription_identifier"] = identifiers
    user = packet.user_properties
    if user:
        found["user_property"] = user
    return cast("Properties", found) if found else None


def to_packet(properties: Properties) -> dict[str, Any]:
    """Return ``properties`` as the codec's packet takes them. Raise ValueError for a name that a sender cannot set."""
    for name in properties:
        if name not in _OPTIONS:
            raise ValueError(f"a message has no property {name!r} that can be set. These can: {', '.join(_OPTIONS)}")
    return {_OPTIONS[name]: value for name, value in properties.items()}
