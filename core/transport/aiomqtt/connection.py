"""A connection over aiomqtt: MQTT 3.1.1 and 5, over TCP, TLS and WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, cast

import aiomqtt
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY, MQTT_ERR_SUCCESS
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties
from paho.mqtt.subscribeoptions import SubscribeOptions

from core.errors import BrokerRefusedError, BrokerUnreachableError, ConnectionLostError, one_line
from core.mqtt.message import Message
from core.mqtt.publication import Publication
from core.transport.aiomqtt.properties import from_paho, to_paho
from core.transport.aiomqtt.reading import PahoReading
from core.transport.aiomqtt.socket import PahoSocket
from core.transport.connection import (
    MAX_CLOSING,
    MAX_PUBLISHING,
    PACKET_TOO_LARGE,
    Closure,
    Connack,
    Connection,
    packets_of,
)
from core.transport.refusal import NotSentError, refused, silent, subscriptions_refused
from core.transport.salvage import aliased, nameless
from core.transport.tls import tls_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paho.mqtt.client import Client as PahoClient
    from paho.mqtt.client import ConnectFlags, DisconnectFlags, MQTTMessage
    from paho.mqtt.reasoncodes import ReasonCode

    from core.transport.connection import Listener, Subscription
    from core.transport.options import ConnectOptions

PUBACK = 0x40
DISCONNECT = b"\xe0\x00"
PINGREQ = b"\xc0\x00"
MAX_ANSWERING = 600.0
"""Seconds to wait for SUBACK and UNSUBACK. What the broker has collected for the session may come before them."""


class AiomqttConnection(Connection):
    """See ``core.transport.connection.Connection``.

    aiomqtt makes the network connection and CONNECT. Messages go straight from paho's callback to the listener, and not
    through aiomqtt's queue and iterator, which cost a task each.
    """

    def __init__(self, options: ConnectOptions, listener: Listener, number: int) -> None:
        self._options = options
        self._is_5 = options.version == "5"
        self._listener = listener
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[Closure] = self._loop.create_future()
        self._publishing: dict[int, asyncio.Future[None]] = {}
        self._slots = asyncio.Semaphore(MAX_PUBLISHING)
        self._maximum_packet_size: int | None = None
        self._identifiers = False
        self._refusal: ReasonCode | None = None
        self._client: aiomqtt.Client | None = None
        self._paho: PahoClient | None = None
        self._socket: PahoSocket | None = None
        self._reading: PahoReading | None = None
        self._pings: list[asyncio.Future[None]] = []
        self._connected = False
        self._closing = False

    # -- CONNECT -------------------------------------------------------------------------------------------------------

    async def open(self) -> Connack:
        """Connect by the version of the options. Raise BrokerUnreachableError or BrokerRefusedError."""
        try:
            connack = await self._open()
        except BaseException:
            self._release()
            raise
        self._maximum_packet_size = connack.maximum_packet_size
        self._identifiers = connack.subscription_identifiers
        self._slots = asyncio.Semaphore(min(connack.receive_maximum, MAX_PUBLISHING))
        return connack

    async def _open(self) -> Connack:
        options, will = self._options, self._options.will
        answered: asyncio.Future[Connack] = self._loop.create_future()
        client = self._client = aiomqtt.Client(
            options.host,
            options.port,
            username=options.username,
            password=options.password,
            identifier=options.client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if self._is_5 else aiomqtt.ProtocolVersion.V311,
            clean_session=None if self._is_5 else options.clean_start,
            clean_start=options.clean_start if self._is_5 else MQTT_CLEAN_START_FIRST_ONLY,
            properties=self._connect_properties() if self._is_5 else None,
            transport="websockets" if options.websocket else "tcp",
            websocket_path=options.path if options.websocket else None,
            keepalive=options.keepalive,
            timeout=options.connect_timeout,
            tls_context=tls_context(options) if options.tls else None,
            max_inflight_messages=65_535,
            max_queued_outgoing_messages=0,
            will=None if will is None else aiomqtt.Will(will.topic, will.body, will.qos, will.retain),
        )
        # The one private name of aiomqtt that is needed is its paho client. What is called on that is public, but for what
        # a comment names where it is done, and for what is in reading.py.
        paho = self._paho = client._client  # noqa: SLF001
        paho.manual_ack_set(on=True)
        paho.on_message = self._on_message
        paho.on_publish = self._on_publish
        self._socket = PahoSocket(paho, keepalive=options.keepalive, websocket=options.websocket, failed=self._fail)
        self._reading = PahoReading(paho, options, self._number, self._receive, self._socket.went_on, self._answered)
        self._listen(paho, answered)
        entering = asyncio.ensure_future(client.__aenter__())
        try:
            await asyncio.wait({entering, cast("asyncio.Future[Any]", self._closed)}, return_when=asyncio.FIRST_COMPLETED)
            if not entering.done():
                if self._refusal is not None:
                    raise refused(str(self._refusal).lower(), self._refusal.value, options)
                raise silent(options, options.version)
            entering.result()
        except MqttConnectError as error:
            code = getattr(error.rc, "value", error.rc)
            raise refused(str(error.rc).lower(), code if isinstance(code, int) else 0x80, options) from None
        except aiomqtt.MqttError as error:
            raise _unreachable(error, options) from None
        except OSError as error:
            raise BrokerUnreachableError(f"{options.address} cannot be reached: {one_line(error)}") from None
        finally:
            if not entering.done():
                entering.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await entering
        return answered.result()

    def _listen(self, paho: PahoClient, answered: asyncio.Future[Connack]) -> None:
        """Hear of CONNACK and of the end before aiomqtt does. CONNACK goes to ``answered``."""
        aiomqtt_on_connect, aiomqtt_on_disconnect = paho.on_connect, paho.on_disconnect

        def on_connect(
            paho: PahoClient, userdata: object, flags: ConnectFlags, code: ReasonCode, properties: Any = None
        ) -> None:
            if code.is_failure:
                self._refusal = code
            elif not answered.done():
                connack = Connack(
                    session_present=flags.session_present,
                    version=self._options.version,
                    receive_maximum=getattr(properties, "ReceiveMaximum", 65_535),
                    maximum_packet_size=getattr(properties, "MaximumPacketSize", None),
                    maximum_qos=getattr(properties, "MaximumQoS", 2),
                    shared_subscriptions=bool(getattr(properties, "SharedSubscriptionAvailable", 1)),
                    subscription_identifiers=self._is_5 and bool(getattr(properties, "SubscriptionIdentifierAvailable", 1)),
                )
                answered.set_result(connack)
                self._connected = True
                self._listener.connected(connack)
            cast("Any", aiomqtt_on_connect)(paho, userdata, flags, code, properties)

        def on_disconnect(
            paho: PahoClient, userdata: object, flags: DisconnectFlags, code: ReasonCode, properties: Any = None
        ) -> None:
            if not self._connected:
                # Later nobody waits for what it would tell. _or_lost() hears of the end by itself.
                cast("Any", aiomqtt_on_disconnect)(paho, userdata, flags, code, properties)
            from_broker = flags.is_disconnect_packet_from_server
            reason = f"the broker says: {code}".lower() if from_broker else "the connection broke"
            hung_up = from_broker or str(code) == "Unspecified error"
            if not from_broker and str(code) == "Keep alive timeout":
                reason = f"the broker did not answer a PINGREQ within {self._options.keepalive} s"
            self._end(Closure(reason, code.value if from_broker else None, hung_up=hung_up))

        paho.on_connect = on_connect
        paho.on_disconnect = on_disconnect

    def _connect_properties(self) -> PahoProperties:
        properties = PahoProperties(PacketTypes.CONNECT)
        properties.ReceiveMaximum = self._options.receive_maximum
        properties.MaximumPacketSize = self._options.maximum_packet_size
        if not self._options.clean_start:
            properties.SessionExpiryInterval = self._options.session_expiry
        return properties

    # -- reading -------------------------------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Remove the socket from the event loop's readers."""
        if self._socket is not None and not self._closed.done():
            self._socket.pause_reading()

    def resume_reading(self) -> None:
        """Add the socket to the event loop's readers again."""
        if self._socket is not None and not self._closed.done():
            self._socket.resume_reading()

    # -- what comes in -------------------------------------------------------------------------------------------------

    def _on_message(self, paho: PahoClient, userdata: object, message: MQTTMessage) -> None:
        if self._reading is None:
            return
        properties = message.properties
        made = Message(
            message.topic,
            cast("bytes", message.payload),
            message.qos,
            message.mid if message.qos else 0,
            self._number,
            None if properties is None else from_paho(properties),
            retain=message.retain,
            dup=message.dup,
        )
        if properties is not None and "TopicAlias" in vars(properties):
            made.fault = aliased(vars(properties)["TopicAlias"])
        elif not made.topic:
            made.fault = nameless()
        self._reading.came(made)

    def _receive(self, message: Message) -> None:
        if not self._closing:
            self._listener.receive(message)

    def _answered(self) -> None:
        """Tell those who wait for a PINGRESP that it has come."""
        pings, self._pings = self._pings, []
        for waiting in pings:
            if not waiting.done():
                waiting.set_result(None)

    def _on_publish(self, paho: PahoClient, userdata: object, mid: int, code: ReasonCode, properties: object) -> None:
        if self._socket is not None:
            self._socket.went_on()
        waiting = self._publishing.pop(mid, None)
        if waiting is None or waiting.done():
            return
        if code.is_failure:
            waiting.set_exception(BrokerRefusedError(f"the broker refused the message: {code}", code.value))
        else:
            waiting.set_result(None)

    def _fail(self, reason: str) -> None:
        self._end(Closure(reason))
        self._release()

    def _end(self, closure: Closure) -> None:
        if self._closed.done():
            return
        self._closed.set_result(closure)
        if self._connected:
            self._listener.disconnected()
        for waiting in [*self._publishing.values(), *self._pings]:
            if not waiting.done():
                waiting.set_exception(ConnectionLostError(closure.reason))
        self._publishing.clear()
        self._pings.clear()

    # -- what goes out -------------------------------------------------------------------------------------------------

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """Subscribe, in one packet and in one more for each identifier."""
        refusals: dict[str, str] = {}
        for packet in packets_of(subscriptions, identifiers=self._identifiers):
            refusals |= await self._subscribe(packet, packet[0].identifier if self._identifiers else None)
        if refusals:
            raise subscriptions_refused(refusals)

    async def _subscribe(self, subscriptions: Sequence[Subscription], identifier: int | None) -> dict[str, str]:
        """Subscribe in one packet, and return the refused topic filters with the broker's reasons."""
        client = self._client
        assert client is not None  # noqa: S101 - open() came before
        properties = None
        if self._is_5:
            topics: Any = [
                # Retained messages only for new subscriptions, not again on each reconnect (MQTT 5, 3.8.3.1).
                (
                    one.topic_filter,
                    SubscribeOptions(one.qos, retainAsPublished=one.retained, retainHandling=1 if one.retained else 2),
                )
                for one in subscriptions
            ]
            if identifier is not None:
                properties = PahoProperties(PacketTypes.SUBSCRIBE)
                properties.SubscriptionIdentifier = identifier
        else:
            topics = [(one.topic_filter, one.qos) for one in subscriptions]
        codes = await self._or_lost(client.subscribe(topics, properties=properties, timeout=MAX_ANSWERING))
        return {
            one.topic_filter: str(code)
            for one, code in zip(subscriptions, codes, strict=False)
            if (code.value if hasattr(code, "value") else code) >= 0x80
        }

    async def unsubscribe(self, topic_filters: Sequence[str]) -> None:
        """Unsubscribe in one packet."""
        assert self._client is not None  # noqa: S101 - open() came before
        await self._or_lost(self._client.unsubscribe(list(topic_filters), timeout=MAX_ANSWERING))

    async def _or_lost(self, call: Any) -> Any:
        """Await ``call`` and return its result. Raise ConnectionLostError should the connection end meanwhile."""
        task = asyncio.ensure_future(call)
        try:
            await asyncio.wait([task, self._closed], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ConnectionLostError(self._closed.result().reason)
            return task.result()
        except aiomqtt.MqttError as error:
            raise ConnectionLostError(one_line(error, name=False)) from None
        finally:
            task.cancel()

    async def publish(self, publication: Publication) -> None:
        """Publish. At most MAX_PUBLISHING messages are under way at once."""
        topic, body, qos, retain, properties = publication
        most = self._maximum_packet_size
        # The properties are not counted. They are seldom what makes a packet too large.
        if most is not None and len(topic.encode()) + len(body) + 5 > most:
            raise BrokerRefusedError(
                f"the message on {topic[:100]} has {len(body):,} bytes. The broker takes packets of at most {most:,}",
                PACKET_TOO_LARGE,
            )
        async with self._slots:
            if self._closed.done() or self._paho is None:
                raise NotSentError("the connection is closed")
            told = to_paho(properties) if properties and self._is_5 else None
            info = self._paho.publish(topic, body, qos, retain, told)
            if info.rc != MQTT_ERR_SUCCESS:
                raise ConnectionLostError("the connection broke")
            waiting = self._publishing[info.mid] = self._loop.create_future()
            try:
                await waiting
            finally:
                self._publishing.pop(info.mid, None)

    async def ping(self) -> None:
        """Send PINGREQ and wait for its answer."""
        if self._closed.done() or self._paho is None:
            raise ConnectionLostError("the connection is closed")
        # paho has no public way to ask for a sign of life.
        self._paho._packet_queue(PINGREQ[0], PINGREQ, 0, 0)  # noqa: SLF001
        waiting: asyncio.Future[None] = self._loop.create_future()
        self._pings.append(waiting)
        await waiting

    def acknowledge(self, packet_ids: Sequence[int]) -> None:
        """Send the PUBACKs in one write."""
        if not packet_ids or self._closed.done() or self._paho is None or self._closing:
            return
        # paho's public ack() sends one packet a write. PUBACK with reason code 0 has this form in MQTT 3.1.1 and 5.
        packets = b"".join(b"\x40\x02" + packet_id.to_bytes(2, "big") for packet_id in packet_ids)
        self._paho._packet_queue(PUBACK, packets, 0, 0)  # noqa: SLF001

    # -- the end -------------------------------------------------------------------------------------------------------

    async def closed(self) -> Closure:
        """Wait for the end, and return why it came."""
        return await asyncio.shield(self._closed)

    async def close(self) -> None:
        """Send what waits and DISCONNECT, wait until the broker hangs up, and release the socket."""
        if self._connected and not self._closed.done() and self._paho is not None and not self._closing:
            self._closing = True
            # paho's disconnect() hangs up at once. A broker that sees a new connection of this client before it has read
            # the last PUBACKs of this one forgets them. It hangs up itself when it has read DISCONNECT (MQTT 5, 3.14.4).
            self._paho._packet_queue(PUBACK, DISCONNECT, 0, 0)  # noqa: SLF001
            self.resume_reading()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MAX_CLOSING):
                    await self.closed()
        self._closing = True
        self._end(Closure("closed"))
        self._release()

    def _release(self) -> None:
        """Close the socket, in whatever state it is."""
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.release()


def _unreachable(error: aiomqtt.MqttError, options: ConnectOptions) -> BrokerUnreachableError:
    text = one_line(error, name=False)
    if "timed out" in text and "Operation" in text:
        return silent(options, options.version)
    return BrokerUnreachableError(f"{options.address} cannot be reached: {text}")
