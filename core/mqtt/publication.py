"""One message to be published."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from core.mqtt.topics import check_topic

if TYPE_CHECKING:
    from core.mqtt.message import Properties


class Publication(NamedTuple):
    """One message to be published, as PUBLISH carries it (MQTT 5, 3.3).

    - ``topic``: the topic.
    - ``body``: the encoded payload.
    - ``qos``: 0 or 1.
    - ``retain``: whether the broker keeps it for later subscriptions.
    - ``properties``: None where there are none.
    """

    topic: str
    body: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties | None = None


def check_publication(publication: Publication) -> Publication:
    """Return ``publication`` if it can be sent. Raise TopicError, or ValueError for a QoS other than 0 and 1."""
    if publication.qos not in {0, 1}:
        raise ValueError(f"a message cannot be published with qos={publication.qos!r}. Write qos=0 or qos=1")
    check_topic(publication.topic)
    return publication
