"""One received PUBLISH, as every transport hands it on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict


class Properties(TypedDict, total=False):
    """The properties of a PUBLISH (MQTT 5, 3.3.2.3) under the specification's names; absent ones are left out.

    ``message_expiry_interval`` is in seconds. ``user_property`` keeps order and repeats, as the specification demands.
    A topic alias is resolved by the transport and never shown.
    """

    payload_format_indicator: int
    message_expiry_interval: int
    content_type: str
    response_topic: str
    correlation_data: bytes
    subscription_identifier: list[int]
    user_property: list[tuple[str, str]]


@dataclass(slots=True, eq=False, repr=False)
class Message:
    """One PUBLISH from the broker.

    - ``topic``, ``body``, ``qos``, ``retain``, ``dup``: see MQTT 5, 3.3.
    - ``packet_id``: the packet identifier (MQTT 5, 2.2.1), 0 at QoS 0.
    - ``connection``: the number of the network connection that it came in on. An acknowledgement is valid on that connection
      only, since the broker sends whatever is unacknowledged again on the next one (MQTT 5, 4.4).
    - ``properties``: None where there are none.
    """

    topic: str
    body: bytes
    qos: int = 0
    packet_id: int = 0
    connection: int = 0
    properties: Properties | None = None
    retain: bool = field(default=False, kw_only=True)
    dup: bool = field(default=False, kw_only=True)

    def __repr__(self) -> str:
        return f"<Message {self.topic!r} qos={self.qos} packet_id={self.packet_id} {len(self.body)} bytes>"
