"""The broker: sessions, packet identifiers, DUP, Receive Maximum, redelivery, and who takes over from whom."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import mqtt5

from core.mqtt.topics import matches

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.world.loop import World
    from tests.simulation.world.network import Link, Network

OF_A_CLIENT = -1
"""The number of a message that a client has published, not a device."""
TAKEN_OVER = mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER).write()


@dataclass(frozen=True, slots=True)
class Habits:
    """What one broker does in its way.

    - ``numbers``: "circle" (Mosquitto, EMQX), "lowest" (the lowest free one), or "anew" (from 1 on each connection,
      as RabbitMQ does).
    - ``dup``: whether it sets DUP on a redelivery (aedes does not).
    - ``bounded``: whether it heeds Receive Maximum (MQTT 3.1.1 has none).
    - ``tells``: whether it says that another client took over.
    - ``circle``: how many packet identifiers it has: 65,535 in life. What the product derives of them is scaled as well.
    """

    numbers: str = "circle"
    dup: bool = True
    bounded: bool = True
    tells: bool = True
    circle: int = 64

    @property
    def gives_identity(self) -> bool:
        """Whether a redelivery can be told from a new message."""
        return self.numbers == "circle" and self.dup


@dataclass(slots=True)
class Item:
    """One message in a session. ``ill_formed`` says that its topic is not UTF-8."""

    n: int
    topic: str
    body: bytes
    properties: dict[str, Any]
    qos: int
    ill_formed: bool = False
    sent: bool = False
    packet_id: int = 0


class _Session:
    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.filters: set[str] = set()
        self.waiting: deque[Item] = deque()
        self.under_way: dict[int, Item] = {}
        self.last_id = 0
        self.client: _Client | None = None


class _Client:
    """One connection of a client."""

    def __init__(self, broker: Broker, link: Link) -> None:
        self.broker = broker
        self.link = link
        self.session: _Session | None = None
        self.receive_maximum = 65_535
        self.clean = False
        self._bytes = bytearray()

    def received(self, data: bytes) -> None:
        self._bytes += data
        start, end = 0, len(self._bytes)
        whole: Any = bytes(self._bytes)
        while start < end:
            try:
                packet, size = mqtt5.read(whole[start:])
            except IndexError:
                break
            start += size
            self.broker.take(self, packet)
        del self._bytes[:start]

    def ended(self) -> None:
        self.broker.left(self)


class Broker:
    """The broker of one run.

    - ``acknowledged``: called with each message that a client has acknowledged.
    """

    def __init__(self, world: World, network: Network, habits: Habits, acknowledged: Callable[[Item], None]) -> None:
        self.world = world
        self.network = network
        self.habits = habits
        self.acknowledged = acknowledged
        self.sessions: dict[str, _Session] = {}
        self.published: list[tuple[str, bytes]] = []
        self.lost: set[int] = set()
        self.queued: set[int] = set()
        self._held_back: list[Item] = []
        network.accept = self._accept

    def _accept(self, link: Link) -> None:
        client = _Client(self, link)
        link.received, link.ended = client.received, client.ended

    # -- devices -------------------------------------------------------------------------------------------------------

    def publish(self, item: Item) -> None:
        """Take a message from a device, for each session that wants it. While the broker is down, the device waits."""
        if not self.network.is_up:
            self._held_back.append(item)
            return
        for session in self.sessions.values():
            if not any(matches(wanted, item.topic) for wanted in session.filters):
                continue
            if item.qos:
                self.queued.add(item.n)
                session.waiting.append(replace(item))
                self._pump(session)
            elif session.client is not None:
                self._send(session.client, item)

    # -- clients -------------------------------------------------------------------------------------------------------

    def take(self, client: _Client, packet: Any) -> None:
        """Take a packet from a client."""
        link, session = client.link, client.session
        if isinstance(packet, mqtt5.ConnectPacket):
            self._connect(client, packet)
        elif session is None or session.client is not client:
            return
        elif isinstance(packet, mqtt5.PubAckPacket):
            item = session.under_way.pop(packet.packet_id, None)
            if item is not None:
                self.world.tell("broker", f"gets PUBACK {packet.packet_id} of message {item.n}")
                if item.n != OF_A_CLIENT:
                    self.acknowledged(item)
                self._pump(session)
        elif isinstance(packet, mqtt5.PublishPacket):
            self.published.append((packet.topic, bytes(packet.payload)))
            if packet.packet_id is not None:
                link.send(mqtt5.PubAckPacket(packet.packet_id).write())
            qos = int(packet.packet_id is not None)
            self.publish(Item(OF_A_CLIENT, packet.topic, bytes(packet.payload), {}, qos))
        elif isinstance(packet, mqtt5.SubscribePacket):
            session.filters.update(one.pattern for one in packet.topic_filters)
            granted = [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE] * len(packet.topic_filters)
            link.send(mqtt5.SubAckPacket(packet.packet_id, granted).write())
        elif isinstance(packet, mqtt5.UnsubscribePacket):
            session.filters.difference_update(packet.patterns)
            link.send(
                mqtt5.UnsubAckPacket(packet.packet_id, [mqtt5.UnsubAckReasonCode.SUCCESS] * len(packet.patterns)).write()
            )
        elif isinstance(packet, mqtt5.PingReqPacket):
            link.send(mqtt5.PingRespPacket().write())
        elif isinstance(packet, mqtt5.DisconnectPacket):
            self.left(client)
            link.hang_up()

    def _connect(self, client: _Client, packet: mqtt5.ConnectPacket) -> None:
        session = self.sessions.get(packet.client_id)
        if session is not None and session.client is not None:
            old = session.client
            self.world.tell("broker", f"gives the session of {packet.client_id} to a new connection")
            self.left(old)
            if self.habits.tells:
                old.link.send(TAKEN_OVER)
            old.link.hang_up()
            session = self.sessions.get(packet.client_id)
        if packet.clean_start:
            session = None
        present = session is not None
        if session is None:
            session = self.sessions[packet.client_id] = _Session(packet.client_id)
        client.session, session.client = session, client
        client.clean = packet.session_expiry_interval == 0
        client.receive_maximum = packet.receive_max if self.habits.bounded else 65_535
        self.world.tell("broker", f"CONNACK to {packet.client_id}, session {'present' if present else 'new'}")
        client.link.send(mqtt5.ConnAckPacket(session_present=present, subscription_id_available=True).write())
        again, session.under_way = list(session.under_way.values()), {}
        if self.habits.numbers == "anew":
            session.last_id = 0
        for item in again:
            item.packet_id = self._number(session) if self.habits.numbers == "anew" else item.packet_id
            session.under_way[item.packet_id] = item
            self._send(client, item)
        self._pump(session)

    def left(self, client: _Client) -> None:
        """Record the end of a client's connection."""
        session = client.session
        if session is not None and session.client is client:
            session.client = None
            if client.clean:
                del self.sessions[session.client_id]

    def _number(self, session: _Session) -> int:
        if self.habits.numbers == "lowest":
            return next(number for number in range(1, 65_536) if number not in session.under_way)
        while True:
            session.last_id = session.last_id % self.habits.circle + 1
            if session.last_id not in session.under_way:
                return session.last_id

    def _pump(self, session: _Session) -> None:
        client = session.client
        # The record holds twice as much as is under way: a message may be committed long before its turn to be acknowledged.
        most = self.habits.circle // 4
        while client is not None and session.waiting and len(session.under_way) < min(client.receive_maximum, most):
            item = session.waiting.popleft()
            item.packet_id = self._number(session)
            session.under_way[item.packet_id] = item
            self._send(client, item)

    def _send(self, client: _Client, item: Item) -> None:
        dup = item.sent and self.habits.dup
        self.world.tell(
            "broker", f"sends message {item.n} on {item.topic} as {item.packet_id}{' again' * item.sent}{', DUP' * dup}"
        )
        packet = mqtt5.PublishPacket(
            item.topic,
            item.body,
            qos=mqtt5.QoS.AT_LEAST_ONCE if item.qos else mqtt5.QoS.AT_MOST_ONCE,
            packet_id=item.packet_id if item.qos else None,
            duplicate=dup,
            **item.properties,
        ).write()
        if item.ill_formed:
            # A broker that does not look passes on what a device made of the topic.
            packet = packet.replace(item.topic.encode(), item.topic.encode()[:-1] + b"\xff", 1)
        client.link.send(packet)
        item.sent = True

    # -- faults --------------------------------------------------------------------------------------------------------

    def restart(self, seconds: float, *, keeps: bool) -> None:
        """Go down for ``seconds``, and come back with the sessions, or without them."""
        self.network.is_up = False
        self.network.cut_all("the broker goes down")
        for session in list(self.sessions.values()):
            if session.client is not None:
                self.left(session.client)
        if not keeps:
            for session in self.sessions.values():
                self.lost.update(item.n for item in (*session.waiting, *session.under_way.values()))
            self.sessions.clear()
            self.world.tell("broker", "loses all sessions")
        self.world.after(seconds, self._up)

    def _up(self) -> None:
        self.network.is_up = True
        self.world.tell("broker", "is up again")
        held_back, self._held_back = self._held_back, []
        for item in held_back:
            self.publish(item)

    def open_items(self, client_id: str) -> list[Item]:
        """Return what the session of ``client_id`` still holds."""
        session = self.sessions.get(client_id)
        return [] if session is None else [*session.under_way.values(), *session.waiting]
