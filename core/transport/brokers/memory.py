"""A broker in memory, for tests of application logic. It keeps the contract of the real ones, without a network."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count
from typing import TYPE_CHECKING

from core.errors import BrokerUnreachableError, ConnectionLostError
from core.mqtt.message import Message
from core.mqtt.topics import check_filter, check_topic, matches
from core.transport.connection import Closure, Connack, Connection
from core.transport.refusal import NotSentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.mqtt.publication import Publication
    from core.transport.connection import Connect, Listener, Subscription

MAX_REMEMBERED = 10_000
"""Publications and packet identifiers that a broker in memory remembers."""


class _MemorySession:
    """What the broker keeps of one client: its subscriptions, and the messages that it has not acknowledged."""

    def __init__(self, receive_maximum: int) -> None:
        self.subscriptions: dict[str, int] = {}
        self.waiting: deque[Message] = deque()
        self.unacknowledged: dict[int, Message] = {}
        self.receive_maximum = receive_maximum
        self.packet_ids = count(1)
        self.connection: MemoryConnection | None = None


class MemoryBroker:
    """A broker that hands publications to the connections subscribed to them, as a real one does.

    - It keeps sessions, and sends unacknowledged messages again, in order and with DUP set.
    - It keeps to the client's Receive Maximum.
    - It keeps retained messages.
    - It sends one copy to a client whose topic filters overlap.
    - It publishes the will of a connection that was cut.

    ``published`` holds the latest 10,000 messages that clients published, and ``acknowledged`` the latest 10,000 packet
    identifiers that they acknowledged. While ``up`` is False, nobody can connect.
    """

    def __init__(self) -> None:
        self.published: deque[Publication] = deque(maxlen=MAX_REMEMBERED)
        self.acknowledged: deque[int] = deque(maxlen=MAX_REMEMBERED)
        self.up = True
        self._sessions: dict[str, _MemorySession] = {}
        self._retained: dict[str, Message] = {}

    def connector(
        self, client_id: str, *, clean_start: bool = False, receive_maximum: int = 65_535, will: Publication | None = None
    ) -> Connect:
        """Return what makes connections of the client ``client_id`` to this broker."""

        def connect(listener: Listener, number: int) -> Connection:
            if clean_start:
                self._sessions.pop(client_id, None)
            return MemoryConnection(self, client_id, receive_maximum, listener, number, will)

        return connect

    def publish(self, publication: Publication) -> None:
        """Publish from outside, as a device would."""
        topic, body, qos, retain, properties = publication
        check_topic(topic)
        if retain and body:
            self._retained[topic] = Message(topic, body, qos, 0, 0, properties, retain=True)
        elif retain:
            self._retained.pop(topic, None)
        for session in self._sessions.values():
            granted = [own for own_filter, own in session.subscriptions.items() if matches(own_filter, topic)]
            if granted:
                self._give(session, Message(topic, body, min(qos, max(granted)), 0, 0, properties))

    def drop_connections(self) -> None:
        """Cut all connections, as a broken network does."""
        for session in self._sessions.values():
            if session.connection is not None:
                session.connection.drop("the connection broke")

    def session(self, client_id: str, receive_maximum: int) -> tuple[_MemorySession, bool]:
        """Return the session of ``client_id``, and whether there was one before."""
        found = self._sessions.get(client_id)
        if found is None:
            found = self._sessions[client_id] = _MemorySession(receive_maximum)
            return found, False
        return found, True

    def filters(self, client_id: str) -> set[str]:
        """Return the topic filters that the client ``client_id`` is subscribed to; none where it has no session."""
        session = self._sessions.get(client_id)
        return set() if session is None else set(session.subscriptions)

    def subscribe(self, session: _MemorySession, subscription: Subscription) -> None:
        """Subscribe, and send the retained messages if the subscription is new."""
        check_filter(subscription.topic_filter)
        new = subscription.topic_filter not in session.subscriptions
        session.subscriptions[subscription.topic_filter] = subscription.qos
        for message in list(self._retained.values()) if new and subscription.retained else ():
            if matches(subscription.topic_filter, message.topic):
                qos = min(message.qos, subscription.qos)
                self._give(session, Message(message.topic, message.body, qos, 0, 0, message.properties, retain=True))

    def _give(self, session: _MemorySession, message: Message) -> None:
        if message.qos or session.connection is not None:
            session.waiting.append(message)
            self.deliver(session)

    def deliver(self, session: _MemorySession) -> None:
        """Send what waits for ``session``, as far as its connection takes it."""
        connection = session.connection
        while connection is not None and connection.reading and session.waiting:
            if session.waiting[0].qos and len(session.unacknowledged) >= session.receive_maximum:
                return
            message = session.waiting.popleft()
            message.connection = connection.number
            if message.qos:
                message.packet_id = (next(session.packet_ids) - 1) % 65_535 + 1
                session.unacknowledged[message.packet_id] = message
            connection.listener.receive(message)


class MemoryConnection(Connection):
    """A connection to a MemoryBroker."""

    def __init__(
        self,
        broker: MemoryBroker,
        client_id: str,
        receive_maximum: int,
        listener: Listener,
        number: int,
        will: Publication | None = None,
    ) -> None:
        self.listener = listener
        self.number = number
        self.reading = True
        self._broker = broker
        self._client_id = client_id
        self._receive_maximum = receive_maximum
        self._will = will
        self._session: _MemorySession | None = None
        self._closed: asyncio.Future[Closure] = asyncio.get_running_loop().create_future()

    async def open(self) -> Connack:
        """Connect, and cut another connection of the same client identifier."""
        if not self._broker.up:
            raise BrokerUnreachableError("the broker in memory is down")
        session, present = self._broker.session(self._client_id, self._receive_maximum)
        if session.connection is not None:
            session.connection.drop("session taken over", 0x8E)
        self._session = session
        session.connection = self
        connack = Connack(session_present=present, version="5")
        self.listener.connected(connack)
        again = list(session.unacknowledged.items())
        for packet_id, message in again:
            redelivered = Message(
                message.topic, message.body, message.qos, packet_id, self.number, message.properties, dup=True
            )
            session.unacknowledged[packet_id] = redelivered
            self.listener.receive(redelivered)
        self._broker.deliver(session)
        return connack

    def _standing(self) -> _MemorySession:
        if self._session is None or self._closed.done():
            raise ConnectionLostError("the connection is closed")
        return self._session

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """Subscribe."""
        for subscription in subscriptions:
            self._broker.subscribe(self._standing(), subscription)

    async def unsubscribe(self, topic_filters: Sequence[str]) -> None:
        """Unsubscribe."""
        for topic_filter in topic_filters:
            self._standing().subscriptions.pop(topic_filter, None)

    async def publish(self, publication: Publication) -> None:
        """Publish."""
        if self._closed.done():
            raise NotSentError("the connection is closed")
        self._standing()
        self._broker.published.append(publication)
        self._broker.publish(publication)

    async def ping(self) -> None:
        """Return at once, unless the connection has ended."""
        self._standing()

    def acknowledge(self, packet_ids: Sequence[int]) -> None:
        """Forget the messages, and receive more."""
        if self._session is None or self._closed.done():
            return
        for packet_id in packet_ids:
            self._session.unacknowledged.pop(packet_id, None)
            self._broker.acknowledged.append(packet_id)
        self._broker.deliver(self._session)

    def pause_reading(self) -> None:
        """Receive no more messages for now."""
        self.reading = False

    def resume_reading(self) -> None:
        """Receive messages again."""
        self.reading = True
        if self._session is not None and not self._closed.done():
            self._broker.deliver(self._session)

    def drop(self, reason: str, reason_code: int | None = None) -> None:
        """End the connection from the broker's side, as a broken network does."""
        if self._closed.done():
            return
        self._closed.set_result(Closure(reason, reason_code))
        if self._session is not None:
            if self._session.connection is self:
                self._session.connection = None
            self.listener.disconnected()
            if self._will is not None:
                self._broker.publish(self._will)

    async def closed(self) -> Closure:
        """Wait for the end, and return why it came."""
        return await asyncio.shield(self._closed)

    async def close(self) -> None:
        """Disconnect. The broker keeps the session and throws the will away."""
        self._will = None
        self.drop("closed")
