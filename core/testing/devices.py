"""Devices that receive what the application publishes, and answer its requests."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.codecs import encode_any
from core.mqtt.publication import Publication
from core.mqtt.topics import matches
from core.transport.connection import Subscription

if TYPE_CHECKING:
    from core.mqtt.message import Message, Properties
    from core.transport.brokers.memory import MemoryBroker
    from core.transport.connection import Connack, Connection


@dataclass(frozen=True, slots=True)
class Published:
    """A message that the application published.

    ``payload`` is what ``body`` holds as JSON, or ``body`` itself where it is not JSON.
    """

    topic: str
    payload: Any
    body: bytes
    qos: int
    retain: bool
    properties: Properties


def published(publication: Publication) -> Published:
    """Return ``publication`` as a Published, which tests look at."""
    topic, body, qos, retain, properties = publication
    try:
        payload = json.loads(body)
    except ValueError:
        payload = body
    return Published(topic, payload, body, qos, retain, properties or {})


class Devices:
    """Receives everything that the application publishes, over a connection of its own, and answers as devices do.

    ``answers`` has the topic filters that are answered, each with its answer and the topic of the answer. The first filter
    that takes a topic counts.
    """

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._connection: Connection | None = None
        self.answers: list[tuple[str, Any, str | None]] = []

    async def start(self) -> None:
        """Connect, and subscribe to everything."""
        self._connection = self._broker.connector("devices")(self, 1)
        await self._connection.open()
        await self._connection.subscribe([Subscription("#", 1)])

    async def stop(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            await self._connection.close()

    def connected(self, connack: Connack) -> None:
        """Do nothing, because ``start`` subscribes."""

    def disconnected(self) -> None:
        """Do nothing, because nothing is under way."""

    def receive(self, message: Message) -> None:
        """Have the first device that has this topic answer, in the next turn of the event loop."""
        if message.qos and self._connection is not None:
            self._connection.acknowledge([message.packet_id])
        for topic_filter, answer, on in self.answers:
            if matches(topic_filter, message.topic):
                asyncio.get_running_loop().call_soon(self._answer, message, answer, on)
                return

    def _answer(self, message: Message, answer: Any, on: str | None) -> None:
        heard = Publication(message.topic, message.body, message.qos, message.retain, message.properties)
        value = answer(published(heard)) if callable(answer) else answer
        properties = message.properties or {}
        topic = on or properties.get("response_topic")
        if value is None or topic is None:
            return
        told: Properties = {}
        if "correlation_data" in properties:
            told["correlation_data"] = properties["correlation_data"]
        self._broker.publish(Publication(topic, encode_any(value), 1, properties=told))
