"""PUBLISH properties: the specification's names, and paho's."""

from __future__ import annotations

from typing import Any, cast

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties

from core.mqtt.message import Properties

_NAMES = {
    "PayloadFormatIndicator": "payload_format_indicator",
    "MessageExpiryInterval": "message_expiry_interval",
    "ContentType": "content_type",
    "ResponseTopic": "response_topic",
    "CorrelationData": "correlation_data",
    "SubscriptionIdentifier": "subscription_identifier",
    "UserProperty": "user_property",
}
_PAHO_NAMES = {name: paho_name for paho_name, name in _NAMES.items()}


def from_paho(properties: PahoProperties) -> Properties | None:
    """Return paho's properties under the specification's names, or None where there are none.

    paho keeps each property that is set in an attribute of its name.
    """
    found: dict[str, Any] = {_NAMES[name]: value for name, value in vars(properties).items() if name in _NAMES}
    return cast("Properties", found) if found else None


def to_paho(properties: Properties) -> PahoProperties:
    """Return ``properties`` as paho takes them. Raise ValueError for a name that a sender cannot set."""
    told = PahoProperties(PacketTypes.PUBLISH)
    for name, value in properties.items():
        if name == "user_property":
            told.UserProperty = [tuple(pair) for pair in cast("Any", value)]
        elif name in _PAHO_NAMES and name != "subscription_identifier":
            setattr(told, _PAHO_NAMES[name], value)
        else:
            settable = ", ".join(known for known in _PAHO_NAMES if known != "subscription_identifier")
            raise ValueError(f"a message has no property {name!r} that can be set. These can: {settable}")
    return told
