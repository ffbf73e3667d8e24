"""What can be read of a PUBLISH that breaks a rule of MQTT.

It costs that message alone as long as it can be acknowledged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from core.errors import MalformedError, PacketTooLargeError
from core.mqtt.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.mqtt.message import Properties

PUBLISH = 0x30
KEPT = 128 * 1024
"""Bytes that are kept of a packet that is too large. That is enough for any topic."""
MAX_BODY = 64 * 1024
"""Bytes of its body that are kept."""


class _ShortError(Exception):
    """The bytes end before the field does."""


class _Fields:
    """Reads the fields of a packet one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self.faults: list[str] = []

    def take(self, size: int) -> bytes:
        if self._at + size > len(self._data):
            raise _ShortError
        self._at += size
        return self._data[self._at - size : self._at]

    def left(self) -> bytes:
        return self._data[self._at :]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def variable(self) -> int:
        """Return a variable byte integer (MQTT 5, 1.5.5)."""
        value = 0
        for place in range(4):
            byte = self.number(1)
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return value
        raise _ShortError

    def binary(self) -> bytes:
        return self.take(self.number(2))

    def text(self, name: str) -> str:
        """Return text. Bytes that are no UTF-8 are escaped, and noted as a fault."""
        data = self.binary()
        try:
            return data.decode()
        except UnicodeDecodeError:
            self.faults.append(f"the {name} is not well-formed UTF-8 (MQTT 5, 1.5.4)")
            return data.decode(errors="backslashreplace")


_READERS: dict[int, tuple[str, Callable[[_Fields], Any]]] = {
    0x01: ("payload_format_indicator", lambda fields: fields.number(1)),
    0x02: ("message_expiry_interval", lambda fields: fields.number(4)),
    0x03: ("content_type", lambda fields: fields.text("content type")),
    0x08: ("response_topic", lambda fields: fields.text("response topic")),
    0x09: ("correlation_data", lambda fields: fields.binary()),
    0x0B: ("subscription_identifier", lambda fields: fields.variable()),
    0x23: ("topic_alias", lambda fields: fields.number(2)),
    0x26: ("user_property", lambda fields: (fields.text("user property"), fields.text("user property"))),
}
"""The properties of PUBLISH (MQTT 5, 3.3.2.3)."""


def remaining(packet: memoryview) -> tuple[int, int] | None:
    """Return the sizes of the fixed header and of what follows it (MQTT 5, 2.1). None where the header is not whole.

    Raise ValueError where the second size is no variable byte integer.
    """
    size = 0
    for place, byte in enumerate(packet[1:5]):
        size |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return 2 + place, size
    if len(packet) >= 5:
        raise ValueError("the remaining length is no variable byte integer (MQTT 5, 1.5.5)")
    return None


def aliased(alias: int) -> MalformedError:
    """Return the error for a message with a topic alias."""
    return _broken(f"it has the topic alias {alias}, although CONNECT allowed none (MQTT 5, 3.3.2.3.4)")


def nameless() -> MalformedError:
    """Return the error for a message with neither a topic nor a topic alias."""
    return _broken("the topic is empty")


def _broken(rule: str) -> MalformedError:
    return MalformedError(f"the broker should not have sent the message: {rule}")


def salvage(first: int, rest: bytes, *, version: str, connection: int, why: str) -> Message | None:
    """Return what can be read of a PUBLISH, with its fault. None where its packet identifier cannot be read.

    - ``first``: the first byte of the packet.
    - ``rest``: what stands behind its fixed header.
    - ``version``: the protocol version, "5" or "3.1.1".
    - ``connection``: the number of the connection that it came on.
    - ``why``: what the library says of it. It is told where nothing else shows what is wrong.
    """
    fields = _Fields(rest)
    message = _begun(first, fields, connection)
    if message is None:
        return None
    if version == "5":
        message.properties = _properties(fields)
    message.body = fields.left()
    message.fault = nameless() if not message.topic and not fields.faults else _broken((fields.faults or [why])[0])
    return message


def salvage_beginning(first: int, rest: bytes, size: int, most: int, *, version: str, connection: int) -> Message | None:
    """Return what can be read of a PUBLISH of ``size`` bytes, of which ``rest`` is the beginning.

    ``most`` is the largest size that is read whole. See ``salvage`` for the others.
    """
    fields = _Fields(rest)
    message = _begun(first, fields, connection)
    if message is None:
        return None
    if version == "5":
        message.properties = _properties(fields)
    message.body = fields.left()[:MAX_BODY]
    message.fault = PacketTooLargeError(
        f"the packet has {size:,} bytes, and at most {most:,} are read, which follows from MAX_PAYLOAD_BYTES. The first "
        f"{len(message.body):,} bytes of the body are kept"
    )
    return message


def _begun(first: int, fields: _Fields, connection: int) -> Message | None:
    """Return the message with what stands before its properties. None where that cannot be read."""
    qos = first >> 1 & 3
    if first & 0xF0 != PUBLISH or qos > 1:
        return None
    try:
        topic = fields.text("topic")
        packet_id = fields.number(2) if qos else 0
    except _ShortError:
        return None
    if qos and not packet_id:
        return None
    return Message(topic, b"", qos, packet_id, connection, retain=bool(first & 1), dup=bool(first & 8))


def _properties(fields: _Fields) -> Properties | None:
    """Return the properties, as far as they can be read."""
    try:
        own = _Fields(fields.take(fields.variable()))
    except _ShortError:
        # Where the body begins cannot be known.
        fields.faults.append("the properties are longer than the packet (MQTT 5, 2.2.2)")
        return None
    own.faults = fields.faults
    found: dict[str, Any] = {}
    try:
        while own.left():
            _property(own, found)
    except _ShortError:
        own.faults.append("a property is longer than all properties together (MQTT 5, 2.2.2)")
    return cast("Properties", found) if found else None


def _property(fields: _Fields, found: dict[str, Any]) -> None:
    number = fields.variable()
    if number not in _READERS:
        fields.faults.append(f"the property {number:#04x} does not belong to PUBLISH (MQTT 5, 3.3.2.3)")
        # How long it is cannot be known, and the next one begins behind it.
        fields.take(len(fields.left()))
        return
    name, read = _READERS[number]
    value = read(fields)
    if name in {"user_property", "subscription_identifier"}:
        found.setdefault(name, []).append(value)
        if value == 0:
            fields.faults.append("a subscription identifier is 0 (MQTT 5, 3.3.2.3.8)")
    elif name == "topic_alias":
        fields.faults.append(f"it has the topic alias {value}, although CONNECT allowed none (MQTT 5, 3.3.2.3.4)")
    elif name in found:
        fields.faults.append(f"the {name.replace('_', ' ')} stands twice (MQTT 5, 3.3.2.3)")
    else:
        found[name] = value
