"""The contract between RouteMQ and whatever carries MQTT: a connection, and the one that listens to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from core.mqtt.publication import Publication

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.mqtt.message import Message


@dataclass(frozen=True, slots=True)
class Subscription:
    """One topic filter (MQTT 5, 4.7) and the highest QoS at which its messages are wanted: 0 or 1.

    ``identifier`` comes with its messages where the version has it (MQTT 5, 3.8.2.1.2). Without ``retained`` the
    broker leaves out what was retained before (MQTT 5, 3.8.3.1); on 3.1.1 it comes, and says that it is retained.
    """

    topic_filter: str
    qos: int = 0
    identifier: int | None = None
    retained: bool = True


@dataclass(frozen=True, slots=True)
class Connack:
    """What the broker answered to CONNECT.

    ``version`` is the protocol version in force, "5" or "3.1.1". ``receive_maximum`` and ``maximum_packet_size``
    (bytes, None = no limit) bound what we may send, the others say what we may ask for (MQTT 5, 3.2.2.3); MQTT 3.1.1
    knows none of them.
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
    """Why a connection ended: in words, and the broker's reason code where it sent DISCONNECT (MQTT 5, 3.14.2.1)."""

    reason: str
    reason_code: int | None = None


SESSION_TAKEN_OVER = 0x8E


class Listener(Protocol):
    """What connections tell. Plain calls on the event loop's thread, in order; none may block or raise."""

    def receive(self, message: Message) -> None:
        """Take one message in."""

    def connected(self, connack: Connack) -> None:
        """Take note that a connection stands, before its first message; older connections' messages are void."""

    def disconnected(self) -> None:
        """Take note that the connection is gone: nothing can be acknowledged until the next one."""


class Deaf:
    """The listener of a connection that subscribes to nothing."""

    def receive(self, message: Message) -> None:
        """Pass over what a broker sends without being asked."""

    def connected(self, connack: Connack) -> None:
        """Have nothing to do."""

    def disconnected(self) -> None:
        """Have nothing to do."""


class Connection(ABC):
    """One network connection to a broker, from CONNECT to its end. A new attempt takes a new one.

    It tells its listener ``connected`` before the first message, and ``disconnected`` the moment it has ended, if it
    ever was connected. It never reconnects and never logs: ``core.session.session.Session`` does both, for every
    transport.
    """

    @abstractmethod
    async def open(self) -> Connack:
        """Open the network connection, send CONNECT and wait for CONNACK.

        Raises BrokerUnreachableError or BrokerRefusedError, each with a sentence that a person can act on.
        """

    @abstractmethod
    async def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """Subscribe and wait for SUBACK. Raises BrokerRefusedError with the refused filters, or ConnectionLostError."""

    @abstractmethod
    async def unsubscribe(self, topic_filters: Sequence[str]) -> None:
        """Unsubscribe and wait for UNSUBACK. Raises ConnectionLostError."""

    @abstractmethod
    async def publish(self, publication: Publication) -> None:
        """Publish. At QoS 1 return when PUBACK has come. Raise BrokerRefusedError or ConnectionLostError.

        The properties are left out on MQTT 3.1.1, which has none.
        """

    @abstractmethod
    def acknowledge(self, packet_ids: Sequence[int]) -> None:
        """Send a PUBACK for each packet identifier, in the order given (MQTT 5, 4.6). Does nothing once closed."""

    @abstractmethod
    def pause_reading(self) -> None:
        """Stop reading the socket, so that TCP tells the broker; the connection is kept alive meanwhile."""

    @abstractmethod
    def resume_reading(self) -> None:
        """Read the socket again."""

    @abstractmethod
    async def closed(self) -> Closure:
        """Wait until the connection has ended, however that came, and return why."""

    @abstractmethod
    async def close(self) -> None:
        """Send what waits to be written and DISCONNECT, keeping the session; release the socket. Never raises."""


Connect = Callable[[Listener, int], Connection]
"""Makes the connection with the given number, which its messages carry; it tells the listener of all that happens."""
