"""A connection by the fast transport, or by the other one where the broker does not speak MQTT 5."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from core.errors import BrokerRefusedError, BrokerUnreachableError
from core.mqtt.publication import Publication
from core.transport.aiomqtt.connection import AiomqttConnection, Version
from core.transport.connection import Connection
from core.transport.native.connection import NativeConnection
from core.transport.refusal import may_be_the_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.transport.connection import Closure, Connack, Listener, Subscription
    from core.transport.options import ConnectOptions


class FallbackConnection(Connection):
    """See ``core.transport.connection.Connection``. What the broker was found to speak is kept in ``version``."""

    def __init__(self, options: ConnectOptions, version: Version, listener: Listener, number: int) -> None:
        self._options = options
        self._version = version
        self._listener = listener
        self._number = number
        self._chosen: Connection = NativeConnection(options, listener, number)

    async def open(self) -> Connack:
        """Connect by MQTT 5 first, and by 3.1.1 where the broker does not speak that."""
        if self._version.known != "3.1.1":
            # A broker that does not know MQTT 5 may just say nothing, which must not cost the whole time.
            first = self._version.known is None
            timeout = min(self._options.connect_timeout, 3) if first else self._options.connect_timeout
            self._chosen = NativeConnection(replace(self._options, connect_timeout=timeout), self._listener, self._number)
            try:
                connack = await self._chosen.open()
            except (BrokerRefusedError, BrokerUnreachableError) as error:
                if not first or not may_be_the_version(error):
                    raise
                await self._chosen.close()
            else:
                self._version.known = "5"
                return connack
        options = replace(self._options, version="3.1.1")
        self._chosen = AiomqttConnection(options, Version("3.1.1"), self._listener, self._number)
        connack = await self._chosen.open()
        self._version.known = "3.1.1"
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
