"""How paho reads a PUBLISH that breaks a rule of MQTT, or that is too large.

paho would end the connection, and keep the whole packet. There is no public way in between, so that this file replaces three
methods of its client and looks at the packet that it is reading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from paho.mqtt.client import MQTT_ERR_PROTOCOL, MQTT_ERR_SUCCESS

from core.errors import one_line
from core.transport.salvage import KEPT, salvage, salvage_beginning

if TYPE_CHECKING:
    from collections.abc import Callable

    from paho.mqtt.client import Client as PahoClient
    from paho.mqtt.enums import MQTTErrorCode

    from core.mqtt.message import Message
    from core.transport.options import ConnectOptions

MAX_RECEIVE = 256 * 1024
"""Bytes that one call receives. paho asks for a whole packet at once, and has room made for it."""


class PahoReading:
    """Reads the PUBLISH packets of ``paho``.

    - ``options``: know the version and the largest packet that is read whole.
    - ``number``: the number of the connection.
    - ``receive``: called with each message.
    - ``went_on``: called when something was read.
    - ``answered``: called when PINGRESP has come.

    ``came`` is called from paho's ``on_message``, with what it made of the packet.
    """

    def __init__(
        self,
        paho: PahoClient,
        options: ConnectOptions,
        number: int,
        receive: Callable[[Message], None],
        went_on: Callable[[], None],
        answered: Callable[[], None],
    ) -> None:
        self._paho = cast("Any", paho)
        self._version = options.version
        self._most = options.maximum_packet_size
        self._number = number
        self._receive = receive
        self._went_on = went_on
        self._answered = answered
        self._came: Message | None = None
        self._recv: Callable[[int], bytes] = self._paho._sock_recv  # noqa: SLF001
        self._publish: Callable[[], MQTTErrorCode] = self._paho._handle_publish  # noqa: SLF001
        self._pingresp: Callable[[], MQTTErrorCode] = self._paho._handle_pingresp  # noqa: SLF001
        self._paho._sock_recv = self._received  # noqa: SLF001
        self._paho._handle_publish = self._publish_came  # noqa: SLF001
        self._paho._handle_pingresp = self._pingresp_came  # noqa: SLF001

    def came(self, message: Message) -> None:
        """Take the message that paho made of a packet."""
        self._came = message

    def _received(self, size: int) -> bytes:
        """Return what the socket has. Pass over what a packet that is too large has beyond its beginning."""
        data = self._recv(min(size, MAX_RECEIVE))
        packet = self._paho._in_packet  # noqa: SLF001
        if packet["remaining_length"] > self._most and len(packet["packet"]) >= KEPT and data:
            packet["to_process"] -= len(data)
            self._went_on()
            # paho comes again for the rest, or for the end of the packet.
            raise BlockingIOError
        return data

    def _publish_came(self) -> MQTTErrorCode:
        packet = self._paho._in_packet  # noqa: SLF001
        first, size = packet["command"], packet["remaining_length"]
        if size > self._most:
            rest = bytes(packet["packet"])
            message = salvage_beginning(first, rest, size, self._most, version=self._version, connection=self._number)
        else:
            self._came = None
            try:
                code = self._publish()
            except Exception as error:  # noqa: BLE001 - whatever paho raises of text that is none, or of a property
                rest = bytes(packet["packet"])
                why = one_line(error, name=False)
                message = salvage(first, rest, version=self._version, connection=self._number, why=why)
            else:
                message = self._came
                if message is None:
                    return code
        if message is None:
            return MQTT_ERR_PROTOCOL
        self._went_on()
        self._receive(message)
        return MQTT_ERR_SUCCESS

    def _pingresp_came(self) -> MQTTErrorCode:
        code = self._pingresp()
        self._answered()
        return code
