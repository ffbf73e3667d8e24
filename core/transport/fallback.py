"""A connection by MQTT 5, or by MQTT 3.1.1 where the broker does not speak MQTT 5."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from core.errors import BrokerRefusedError, BrokerUnreachableError
from core.mqtt.publication import Publication
from core.transport.aiomqtt.connection import AiomqttConnection
from core.transport.connection import Connection, Listener
from core.transport.options import ConnectOptions
from core.transport.refusal import may_be_the_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.transport.connection import Closure, Connack, Subscription

Transport = Callable[[ConnectOptions, Listener, int], Connection]
"""Makes a connection that speaks the version of its options."""


class SpokenVersion:
    """The protocol version that a broker was found to speak, kept from one connection to the next.

    ``found`` is "5", "3.1.1", or None while it is not known.
    """

    def __init__(self) -> None:
        self.found: str | None = None


class FallbackConnection(Connection):
    """See ``core.transport.connection.Connection``.

    - ``options``: how to connect. Their version is "5".
    - ``spoken``: the version that the broker was found to speak, which later connections begin with.
    - ``mqtt5``: the transport for MQTT 5. aiomqtt carries MQTT 3.1.1.
    - ``listener`` and ``number``: those of the connection.
    """

    def __init__(
        self, options: ConnectOptions, spoken: SpokenVersion, mqtt5: Transport, listener: Listener, number: int
    ) -> None:
        self._options = options
        self._spoken = spoken
        self._listener = listener
        self._number = number
        self._chosen: Connection = mqtt5(options, listener, number)

    async def open(self) -> Connack:
        """Connect by MQTT 5, and by MQTT 3.1.1 where the broker does not speak MQTT 5.

        A broker that is merely slow has the whole time to answer: whoever is taken for one of MQTT 3.1.1 stays one.
        """
        if self._spoken.found != "3.1.1":
            try:
                connack = await self._chosen.open()
            except (BrokerRefusedError, BrokerUnreachableError) as error:
                if self._spoken.found is not None or not may_be_the_version(error):
                    raise
                await self._chosen.close()
            else:
                self._spoken.found = "5"
                return connack
        self._chosen = AiomqttConnection(replace(self._options, version="3.1.1"), self._listener, self._number)
        connack = await self._chosen.open()
        self._spoken.found = "3.1.1"
        return connack

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """Subscribe."""
        await self._chosen.subscribe(subscriptions)

    async def unsubscribe(self, topic_filters: Sequence[str]) -> None:
        """Unsubscribe."""
        await self._chosen.unsubscribe(topic_filters)

    async def publish(self, publication: Publication) -> None:
        """Publish."""
        await self._chosen.publish(publication)

    async def ping(self) -> None:
        """Ask for a sign of life."""
        await self._chosen.ping()

    def acknowledge(self, packet_ids: Sequence[int]) -> None:
        """Acknowledge."""
        self._chosen.acknowledge(packet_ids)

    def pause_reading(self) -> None:
        """Stop reading."""
        self._chosen.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._chosen.resume_reading()

    async def closed(self) -> Closure:
        """Wait for the end."""
        return await self._chosen.closed()

    async def close(self) -> None:
        """Disconnect."""
        await self._chosen.close()
