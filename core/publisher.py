"""Publishes messages, over a connection of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.codecs import encode_any
from core.topics import check_topic
from core.transport.base import Deaf
from core.transport.session import Session

if TYPE_CHECKING:
    from core.message import Properties
    from core.transport.base import Connect


class Publisher:
    """Publishes over a session that is opened by the first message.

    It is not the worker's session: that one is not read while too much is in hand, and a PUBACK awaited by a handler
    would then never come.
    """

    def __init__(self, connect: Connect, address: str) -> None:
        self._session = Session(connect, address)
        self._started = False

    async def publish(
        self, topic: str, payload: Any, *, qos: int = 0, retain: bool = False, properties: Properties | None = None
    ) -> None:
        """Publish; see ``core.context.Publish``. Raises TopicError, PayloadError and BrokerRefusedError."""
        if qos not in {0, 1}:
            raise ValueError(f"qos={qos!r} is neither 0 nor 1")
        check_topic(topic)
        body = encode_any(payload)
        if not self._started:
            self._started = True
            self._session.start(Deaf())
        await self._session.publish(topic, body, qos=qos, retain=retain, properties=properties)

    async def stop(self) -> None:
        """Disconnect."""
        if self._started:
            await self._session.stop()
