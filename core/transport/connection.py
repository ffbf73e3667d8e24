"""The contract between RouteMQ and whatever carries MQTT: a connection, and the listener that hears of its messages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from core.mqtt.publication import Publication

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.mqtt.message import Message

MAX_PUBLISHING = 500
"""Publications under way at once on one connection. A broker may ask for fewer (MQTT 5, 3.2.2.3.3, Receive Maximum)."""
MAX_CLOSING = 3.0
"""Seconds that a broker is given to hang up after DISCONNECT."""

SESSION_TAKEN_OVER = 0x8E
PACKET_TOO_LARGE = 0x95


@dataclass(frozen=True, slots=True)
class Subscription:
    """One topic filter with the options of its subscription.

    - ``topic_filter``: the topic filter (MQTT 5, 4.7).
    - ``qos``: the highest QoS at which its messages are wanted, 0 or 1.
    - ``identifier``: the number that its messages carry where the version has it (MQTT 5, 3.8.2.1.2).
    - ``retained``: whether the broker sends what was retained before (MQTT 5, 3.8.3.1). A broker that speaks 3.1.1 always
      does, and the message says that it is retained.
    """

    topic_filter: str
    qos: int = 0
    identifier: int | None = None
    retained: bool = True


@dataclass(frozen=True, slots=True)
class Connack:
    """What the broker answered to CONNECT.

    - ``session_present``: whether the broker has kept the session.
    - ``version``: the protocol version in force, "5" or "3.1.1".

    The others are bounds that the broker sets (MQTT 5, 3.2.2.3). MQTT 3.1.1 knows none of them.

    - ``receive_maximum``: how many publications we may send before the first of them is acknowledged.
    - ``maximum_packet_size``: bytes of the largest packet that we may send. None stands for no limit.
    - ``maximum_qos``: the highest QoS that the broker takes and grants.
    - ``shared_subscriptions``: whether we may subscribe to shared topic filters.
    - ``subscription_identifiers``: whether we may give subscriptions an identifier.
    """

    session_present: bool
    version: str
    receive_maximum: int = 65_535
    maximum_packet_size: int | None = None
    maximum_qos: int = 2
    shared_subscriptions: bool = True
    subscription_identifiers: bool = False


@dataclass(frozen=True, slots=True)
class Closure:
    """Why a connection ended.

    - ``reason``: why, in words.
    - ``reason_code``: the broker's, where it sent DISCONNECT (MQTT 5, 3.14.2.1).
    - ``hung_up``: whether it was the other side that ended it.
    """

    reason: str
    reason_code: int | None = None
    hung_up: bool = False


class Listener(Protocol):
    """Whoever hears of a connection.

    Its methods are plain calls on the event loop's thread, in the order of what happened. None of them may block or raise.
    """

    def receive(self, message: Message) -> None:
        """Take one message in."""

    def connected(self, connack: Connack) -> None:
        """Record that a connection stands, before its first message comes.

        From now on, messages of older connections cannot be acknowledged.
        """

    def disconnected(self) -> None:
        """Record that the connection is gone. Nothing can be acknowledged until the next one stands."""


class Deaf:
    """The listener of a connection, or of a session, that subscribes to nothing."""

    async def connecting(self) -> None:
        """Do nothing."""

    async def subscribing(self) -> None:
        """Do nothing."""

    def receive(self, message: Message) -> None:
        """Ignore what a broker sends without being asked."""

    def connected(self, connack: Connack) -> None:
        """Do nothing."""

    def disconnected(self) -> None:
        """Do nothing."""


class Connection(ABC):
    """One network connection to a broker, from CONNECT to its end. Each attempt to connect takes a new one.

    It calls its listener's ``connected`` before the first message. Once connected, it calls ``disconnected`` the moment
    that it has ended. It never reconnects and never logs: ``core.session.session.Session`` does both, for every transport.
    """

    @abstractmethod
    async def open(self) -> Connack:
        """Open the network connection, send CONNECT and wait for CONNACK.

        Raise BrokerUnreachableError or BrokerRefusedError with a sentence that a person can act on.
        """

    @abstractmethod
    async def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """Subscribe and wait for SUBACK.

        Raise BrokerRefusedError with the topic filters that the broker refused. Raise ConnectionLostError where the
        connection ends before SUBACK.
        """

    @abstractmethod
    async def unsubscribe(self, topic_filters: Sequence[str]) -> None:
        """Unsubscribe and wait for UNSUBACK. Raise ConnectionLostError where the connection ends before it."""

    @abstractmethod
    async def publish(self, publication: Publication) -> None:
        """Publish. At QoS 1, return when PUBACK has come.

        The properties are left out on MQTT 3.1.1, which has none. Raise BrokerRefusedError where the broker does not take
        the message. Raise ConnectionLostError where the connection ends before PUBACK. Raise NotSentError where it ended
        before PUBLISH.
        """

    @abstractmethod
    async def ping(self) -> None:
        """Send PINGREQ and wait for PINGRESP. Raise ConnectionLostError where the connection ends before."""

    @abstractmethod
    def acknowledge(self, packet_ids: Sequence[int]) -> None:
        """Send a PUBACK for each packet identifier, in the order given (MQTT 5, 4.6). Do nothing once closed."""

    @abstractmethod
    def pause_reading(self) -> None:
        """Stop reading the socket, so that TCP tells the broker. The connection is kept alive meanwhile."""

    @abstractmethod
    def resume_reading(self) -> None:
        """Read the socket again."""

    @abstractmethod
    async def closed(self) -> Closure:
        """Wait until the connection has ended, for whatever reason, and return why."""

    @abstractmethod
    async def close(self) -> None:
        """Send what waits to be written, then DISCONNECT, and release the socket.

        The broker keeps the session. Raise nothing.
        """


Connect = Callable[[Listener, int], Connection]
"""Makes a connection that its listener hears of. Its messages carry the number given."""


def packets_of(subscriptions: Sequence[Subscription], *, identifiers: bool) -> list[list[Subscription]]:
    """Return ``subscriptions`` as they go out, one list for each SUBSCRIBE.

    A packet has one identifier at the most (MQTT 5, 3.8.2.1.2), so that each subscription with an identifier needs a packet
    of its own. ``identifiers`` says whether the broker takes them: where it does not, all go out in one packet.
    """
    together = [one for one in subscriptions if one.identifier is None or not identifiers]
    alone = [[one] for one in subscriptions if one not in together]
    return [together, *alone] if together else alone
