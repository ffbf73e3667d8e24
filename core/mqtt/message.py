"""One received PUBLISH, as every transport hands it on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from core.errors import MalformedError


class Properties(TypedDict, total=False):
    """The properties of a PUBLISH (MQTT 5, 3.3.2.3) under the specification's names. Absent ones are left out.

    - ``payload_format_indicator``: 1 for a body that is text in UTF-8.
    - ``message_expiry_interval``: seconds.
    - ``content_type``: what the body is, by the convention of sender and receiver.
    - ``response_topic``: where the answer to a request is expected.
    - ``correlation_data``: what the answer to a request carries too.
    - ``subscription_identifier``: the identifiers of the subscriptions that brought the message.
    - ``user_property``: names and values, in their order. A name may stand there several times.

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

    - ``topic``, ``body``, ``qos``: those of the PUBLISH.
    - ``packet_id``: the packet identifier (MQTT 5, 2.2.1), 0 at QoS 0.
    - ``connection``: the number of the network connection that it came on. An acknowledgement is valid on that connection
      only, since the broker sends whatever is unacknowledged again on the next one (MQTT 5, 4.4).
    - ``properties``: None where there are none.
    - ``retain``: whether the broker had retained it.
    - ``dup``: whether the broker may have sent it before.
    - ``fault``: the rule of MQTT that it breaks. Such a message is not handled. None for one that breaks none.
    """

    topic: str
    body: bytes
    qos: int = 0
    packet_id: int = 0
    connection: int = 0
    properties: Properties | None = None
    retain: bool = field(default=False, kw_only=True)
    dup: bool = field(default=False, kw_only=True)
    fault: MalformedError | None = field(default=None, kw_only=True)

    def looks_like(self, other: Message) -> bool:
        """Return whether no handler could tell the two apart, as with a message and its redelivery.

        What a broker counts down between the two, the expiry, tells nothing. Packet identifiers and DUP are not looked at.
        """
        if self.topic != other.topic or self.body != other.body or self.qos != other.qos or self.retain != other.retain:
            return False
        return self.properties == other.properties or _lasting(self.properties) == _lasting(other.properties)

    def __repr__(self) -> str:
        return f"<Message {self.topic!r} qos={self.qos} packet_id={self.packet_id} {len(self.body)} bytes>"


def _lasting(properties: Properties | None) -> dict[str, object]:
    """Return those of ``properties`` that stay the same when a broker sends a message again."""
    return {name: value for name, value in (properties or {}).items() if name != "message_expiry_interval"}
