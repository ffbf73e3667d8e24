"""A connection by MQTT 5 over TCP, TLS and Unix sockets, on the codec mqtt5. It is the fast one."""

from __future__ import annotations

import asyncio
import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import mqtt5

from core.errors import BrokerRefusedError, BrokerUnreachableError, ConnectionLostError, one_line
from core.mqtt.message import Message
from core.mqtt.publication import Publication
from core.transport.connection import (
    MAX_CLOSING,
    MAX_PUBLISHING,
    PACKET_TOO_LARGE,
    Closure,
    Connack,
    Connection,
    packets_of,
)
from core.transport.native.properties import from_packet, to_packet
from core.transport.native.wire import Wire
from core.transport.refusal import NotSentError, refused, silent, subscriptions_refused
from core.transport.salvage import aliased, remaining, salvage, salvage_beginning
from core.transport.tls import tls_context

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from core.transport.connection import Listener, Subscription
    from core.transport.options import ConnectOptions

_DISCONNECT = mqtt5.DisconnectPacket().write()
_PINGREQ = mqtt5.PingReqPacket().write()


class NativeConnection(Connection):
    """See ``core.transport.connection.Connection``."""

    def __init__(self, options: ConnectOptions, listener: Listener, number: int) -> None:
        self._options = options
        self._listener = listener
        self._receive = listener.receive
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[Closure] = self._loop.create_future()
        self._granted = Connack(session_present=False, version="5")
        self._connack: asyncio.Future[mqtt5.ConnAckPacket] = self._loop.create_future()
        # Answers to PUBLISH, SUBSCRIBE and UNSUBSCRIBE, by packet identifier: one space for all of them (MQTT 5, 2.2.1).
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._next_id = 0
        self._slots = asyncio.Semaphore(MAX_PUBLISHING)
        self._maximum_packet_size: int | None = None
        self._identifiers = True
        self._wire: Wire | None = None
        self._transport: asyncio.Transport | None = None
        self._keepalive = options.keepalive
        self._timer: asyncio.TimerHandle | None = None
        self._pinged_at: float | None = None
        self._pings: list[asyncio.Future[None]] = []
        self._reads = 0
        self._connected = False
        self._paused = False
        self._closing = False

    # -- CONNECT -------------------------------------------------------------------------------------------------------

    async def open(self) -> Connack:
        """Connect. Raise BrokerUnreachableError or BrokerRefusedError."""
        options = self._options
        try:
            async with asyncio.timeout(options.connect_timeout):
                transport, wire = await self._socket()
                self._transport, self._wire = transport, wire
                transport.write(self._connect())
                connack = await self._answer()
        except TimeoutError:
            self._release()
            if self._transport is None:
                waited = f"no network connection within {options.connect_timeout:g} s"
                raise BrokerUnreachableError(f"{options.address} cannot be reached: {waited}") from None
            raise silent(options, "5") from None
        except OSError as error:
            self._release()
            raise BrokerUnreachableError(f"{options.address} cannot be reached: {_reason(error)}") from None
        except BaseException:
            self._release()
            raise
        self._keepalive = connack.server_keep_alive or options.keepalive
        self._slots = asyncio.Semaphore(min(connack.receive_max, MAX_PUBLISHING))
        self._maximum_packet_size = connack.max_packet_size
        self._identifiers = connack.subscription_id_available
        self._timer = self._loop.call_later(self._keepalive / 2, self._keep_alive)
        return self._granted

    async def _socket(self) -> tuple[asyncio.Transport, Wire]:
        options = self._options

        def make() -> Wire:
            return Wire(self._packet, self._unread, self._lost, options.maximum_packet_size)

        if options.scheme == "unix":
            return await self._loop.create_unix_connection(make, options.path)
        context = tls_context(options) if options.tls else None
        name = options.host if context is not None else None
        return await self._loop.create_connection(make, options.host, options.port, ssl=context, server_hostname=name)

    def _connect(self) -> bytes:
        options = self._options
        return mqtt5.ConnectPacket(
            options.client_id,
            username=options.username,
            password=options.password.encode() if options.password is not None else None,
            clean_start=options.clean_start,
            keep_alive=options.keepalive,
            session_expiry_interval=0 if options.clean_start else options.session_expiry,
            receive_max=options.receive_maximum,
            max_packet_size=options.maximum_packet_size,
            will=_will(options.will) if options.will is not None else None,
        ).write()

    async def _answer(self) -> mqtt5.ConnAckPacket:
        """Wait for CONNACK and return it. Raise what the broker's refusal, or its silence, stands for."""
        await asyncio.wait({self._connack, cast("Any", self._closed)}, return_when=asyncio.FIRST_COMPLETED)
        if not self._connack.done():
            raise silent(self._options, "5")
        connack = self._connack.result()
        if int(connack.reason_code) >= 0x80:
            raise refused(_words(connack.reason_code), int(connack.reason_code), self._options)
        return connack

    # -- what comes in -------------------------------------------------------------------------------------------------

    def _packet(self, packet: Any) -> None:
        if type(packet) is mqtt5.PublishPacket:
            if not self._closing:
                self._publish_came(packet)
        elif type(packet) is mqtt5.PubAckPacket:
            self._answered(packet.packet_id, packet)
        elif type(packet) is mqtt5.PingRespPacket:
            self._pinged_at = None
            for waiting in self._pings:
                if not waiting.done():
                    waiting.set_result(None)
            self._pings.clear()
        elif isinstance(packet, mqtt5.SubAckPacket | mqtt5.UnsubAckPacket):
            self._answered(packet.packet_id, packet)
        elif isinstance(packet, mqtt5.ConnAckPacket):
            self._connack_came(packet)
        elif isinstance(packet, mqtt5.DisconnectPacket):
            self._end(Closure(f"the broker says: {_words(packet.reason_code)}", int(packet.reason_code), hung_up=True))
            self._release()

    def _publish_came(self, packet: mqtt5.PublishPacket) -> None:
        packet_id = packet.packet_id
        message = Message(
            packet.topic,
            packet.payload,
            0 if packet_id is None else 1,
            packet_id or 0,
            self._number,
            from_packet(packet),
            retain=packet.retain,
            dup=packet.duplicate,
        )
        if packet.topic_alias is not None:
            # None were offered in CONNECT: rumqttd gives one alias to different topics.
            message.fault = aliased(packet.topic_alias)
        self._receive(message)

    def _unread(self, data: bytes, why: str | int) -> bool:
        """Hand on what can be read of a PUBLISH that breaks a rule. Return whether its packet identifier can be read."""
        sizes = remaining(memoryview(data))
        assert sizes is not None  # noqa: S101 - the wire has found where the packet ends
        rest = data[sizes[0] :]
        if isinstance(why, str):
            message = salvage(data[0], rest, version="5", connection=self._number, why=why)
        else:
            most = self._options.maximum_packet_size
            message = salvage_beginning(data[0], rest, why, most, version="5", connection=self._number)
        if message is None or not self._connected:
            return False
        if not self._closing:
            self._receive(message)
        return True

    def _connack_came(self, packet: mqtt5.ConnAckPacket) -> None:
        if self._connack.done():
            return
        if int(packet.reason_code) < 0x80:
            self._granted = Connack(
                session_present=packet.session_present,
                version="5",
                receive_maximum=packet.receive_max,
                maximum_packet_size=packet.max_packet_size,
                maximum_qos=int(packet.max_qos),
                shared_subscriptions=packet.shared_subscription_available,
                subscription_identifiers=packet.subscription_id_available,
            )
            self._connected = True
            # Before the messages that may stand behind it in the same read.
            self._listener.connected(self._granted)
        self._connack.set_result(packet)

    def _answered(self, packet_id: int, packet: Any) -> None:
        waiting = self._waiting.pop(packet_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(packet)

    # -- keeping it alive ----------------------------------------------------------------------------------------------

    def _keep_alive(self) -> None:
        """Send PINGREQ twice in a keep-alive. Its answer cannot be read while reading is paused."""
        now = self._loop.time()
        reads = 0 if self._wire is None else self._wire.reads
        if self._paused or reads != self._reads:
            # A PINGRESP may stand behind a packet that takes longer than the keep-alive.
            self._pinged_at, self._reads = None, reads
        elif self._pinged_at is not None and now - self._pinged_at >= self._keepalive:
            self._end(Closure(f"the broker did not answer a PINGREQ within {self._keepalive} s"))
            self._release()
            return
        if self._transport is not None and not self._closed.done():
            if self._pinged_at is None:
                self._pinged_at = now
            self._transport.write(_PINGREQ)
            self._timer = self._loop.call_later(self._keepalive / 2, self._keep_alive)

    def pause_reading(self) -> None:
        """Stop reading."""
        if not self._paused and not self._closed.done() and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self._paused:
            self._paused = False
            self._pinged_at = None
            if not self._closed.done() and self._transport is not None:
                self._transport.resume_reading()

    # -- what goes out -------------------------------------------------------------------------------------------------

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """Subscribe, in one packet and in one more for each identifier."""
        refusals: dict[str, str] = {}
        for packet in packets_of(subscriptions, identifiers=self._identifiers):
            filters = [
                # Retained messages only for new subscriptions, not again on each reconnect (MQTT 5, 3.8.3.1).
                mqtt5.TopicFilter(
                    one.topic_filter,
                    max_qos=mqtt5.QoS(one.qos),
                    retain_as_published=one.retained,
                    retain_handling=(
                        mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS
                        if one.retained
                        else mqtt5.RetainHandling.SEND_NEVER
                    ),
                )
                for one in packet
            ]
            identifier = packet[0].identifier if self._identifiers else None
            suback = await self._ask(partial(_subscribe_packet, filters, identifier))
            refusals |= {
                one.topic_filter: _words(code)
                for one, code in zip(packet, suback.reason_codes, strict=False)
                if int(code) >= 0x80
            }
        if refusals:
            raise subscriptions_refused(refusals)

    async def unsubscribe(self, topic_filters: Sequence[str]) -> None:
        """Unsubscribe in one packet."""
        await self._ask(lambda packet_id: mqtt5.UnsubscribePacket(packet_id, list(topic_filters)).write())

    async def publish(self, publication: Publication) -> None:
        """Publish. At most MAX_PUBLISHING messages are under way at once."""
        topic, body, qos, retain, properties = publication
        options = to_packet(properties) if properties else {}
        async with self._slots:
            wire = self._wire
            if wire is not None and not wire.writable.is_set():
                await wire.writable.wait()
            if self._closed.done() or self._closing:
                raise NotSentError("the connection is closed")
            if qos == 0:
                self._write(self._checked(topic, mqtt5.PublishPacket(topic, body, retain=retain, **options).write()))
                return
            puback = await self._ask(
                lambda packet_id: self._checked(
                    topic,
                    mqtt5.PublishPacket(
                        topic, body, qos=mqtt5.QoS.AT_LEAST_ONCE, retain=retain, packet_id=packet_id, **options
                    ).write(),
                )
            )
        if int(puback.reason_code) >= 0x80:
            raise BrokerRefusedError(
                f"the broker refused the message: {_words(puback.reason_code)}", int(puback.reason_code)
            )

    def _checked(self, topic: str, packet: bytes) -> bytes:
        """Return ``packet`` if the broker takes packets of its size. Raise BrokerRefusedError otherwise."""
        most = self._maximum_packet_size
        if most is not None and len(packet) > most:
            raise BrokerRefusedError(
                f"the message on {topic[:100]} makes a packet of {len(packet):,} bytes. The broker takes at most {most:,}",
                PACKET_TOO_LARGE,
            )
        return packet

    async def _ask(self, packet: Callable[[int], bytes]) -> Any:
        """Send the packet with a free identifier, wait for its answer and return that. Raise ConnectionLostError."""
        if self._closed.done() or self._closing:
            raise ConnectionLostError("the connection is closed")
        packet_id = self._next_id
        while True:
            packet_id = packet_id % 65_535 + 1
            if packet_id not in self._waiting:
                break
        self._next_id = packet_id
        data = packet(packet_id)
        waiting = self._waiting[packet_id] = self._loop.create_future()
        self._write(data)
        # Should the caller not wait any longer, its identifier stays taken until the answer has come.
        return await waiting

    def _write(self, data: bytes) -> None:
        if self._transport is None or self._closed.done():
            raise ConnectionLostError("the connection is closed")
        self._transport.write(data)

    async def ping(self) -> None:
        """Send PINGREQ and wait for its answer."""
        self._write(_PINGREQ)
        waiting: asyncio.Future[None] = self._loop.create_future()
        self._pings.append(waiting)
        await waiting

    def acknowledge(self, packet_ids: Sequence[int]) -> None:
        """Send the PUBACKs in one write."""
        if packet_ids and self._transport is not None and not self._closed.done() and not self._closing:
            # PUBACK with reason code 0 and no properties (MQTT 5, 3.4.2).
            self._transport.write(b"".join([b"\x40\x02" + packet_id.to_bytes(2, "big") for packet_id in packet_ids]))

    # -- the end -------------------------------------------------------------------------------------------------------

    def _lost(self, reason: str, reason_code: int | None) -> None:
        """End the connection for ``reason``. With a reason code it is us who end it, and DISCONNECT tells the broker why."""
        if reason_code is not None and self._transport is not None and not self._closed.done():
            self._transport.write(mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode(reason_code)).write())
            self._end(Closure(reason))
            if self._wire is not None:
                # What stands behind it in the same read is passed over.
                self._wire.stopped = True
            self._transport.close()
            return
        self._end(Closure(reason, hung_up=True))

    def _end(self, closure: Closure) -> None:
        if self._closed.done():
            return
        self._closed.set_result(closure)
        if self._timer is not None:
            self._timer.cancel()
        if self._connected:
            self._listener.disconnected()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionLostError(closure.reason))
        self._waiting.clear()
        for pinged in self._pings:
            if not pinged.done():
                pinged.set_exception(ConnectionLostError(closure.reason))
        self._pings.clear()

    async def closed(self) -> Closure:
        """Wait for the end, and return why it came."""
        return await asyncio.shield(self._closed)

    async def close(self) -> None:
        """Send what waits and DISCONNECT, wait until the broker hangs up, and release the socket."""
        if self._connected and not self._closed.done() and self._transport is not None and not self._closing:
            self._closing = True
            # A broker that sees a new connection of this client before it has read the last PUBACKs of this one forgets
            # them. It hangs up itself when it has read DISCONNECT (MQTT 5, 3.14.4).
            self._transport.write(_DISCONNECT)
            self.resume_reading()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MAX_CLOSING):
                    await self.closed()
        self._closing = True
        self._end(Closure("closed"))
        self._release()
        if self._wire is not None:
            await self._wire.gone.wait()

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()


def _will(will: Publication) -> mqtt5.Will:
    return mqtt5.Will(will.topic, payload=will.body, qos=mqtt5.QoS(will.qos), retain=will.retain)


def _subscribe_packet(filters: list[mqtt5.TopicFilter], identifier: int | None, packet_id: int) -> bytes:
    return mqtt5.SubscribePacket(packet_id, filters, subscription_id=identifier).write()


def _reason(error: OSError) -> str:
    """Return the system's words for ``error``. asyncio's own text has the address in their place."""
    if isinstance(error, ConnectionError | TimeoutError) and error.errno:
        return os.strerror(error.errno).lower()
    return one_line(error, name=False)


def _words(code: Any) -> str:
    """Return a reason code in words."""
    return str(code.name).replace("_", " ").lower()
