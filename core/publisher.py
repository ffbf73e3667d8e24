"""Publishes messages over a connection of its own. ``publish`` does so from anywhere in the process."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from core.codecs import encode_any
from core.errors import RequestError
from core.mqtt.publication import Publication, check_publication
from core.runtime import Part, current
from core.session.answers import Answers
from core.session.session import Session

if TYPE_CHECKING:
    from core.mqtt.message import Message, Properties
    from core.transport.connection import Connect

NOWHERE = (
    "there is no connection to publish on. Call publish() and request() in the worker, in `python main.py shell`, or "
    "within `async with bootstrap.script.script():`"
)


class Outgoing(ABC):
    """Publishes what handlers publish."""

    async def publish(
        self, topic: str, payload: Any, *, qos: int = 0, retain: bool = False, properties: Properties | None = None
    ) -> None:
        """Publish a message (see ``core.context.Publish``). Raise TopicError, PayloadError and BrokerRefusedError."""
        await self.send(Publication(topic, encode_any(payload), qos, retain, properties))

    @abstractmethod
    async def send(self, publication: Publication) -> None:
        """Publish a message that is encoded. Raise TopicError and BrokerRefusedError."""


class Publisher(Outgoing):
    """Publishes over a session that the first message opens. Answers to requests come in on it.

    It is not the worker's session. That one is not read while too much is in hand, so that a PUBACK or an answer for which
    a handler waits would never come.

    - ``connect``: makes a connection to the broker.
    - ``address``: the broker's address, as log lines name it.
    - ``response_topic``: the topic on which devices answer. None for one that nobody else has.
    """

    def __init__(self, connect: Connect, address: str, response_topic: str | None = None) -> None:
        self._session = Session(connect, address)
        self._started = False
        self.answers = Answers(self._session, response_topic or f"routemq/{secrets.token_hex(8)}/responses")

    async def send(self, publication: Publication) -> None:
        """Publish a message that is encoded. Raise TopicError and BrokerRefusedError."""
        check_publication(publication)
        self._start()
        await self._session.publish(publication)

    async def ask(self, publication: Publication, *, timeout: float, reply: str | None) -> Message:
        """Publish ``publication`` and return the answer to it (see ``core.request.request``).

        ``timeout`` is in seconds. ``reply`` is the topic filter on which the device answers, or None for the response topic.
        """
        check_publication(publication)
        self._start()
        return await self.answers.ask(publication, timeout=timeout, reply=reply)

    def _start(self) -> None:
        if not self._started:
            self._started = True
            self._session.start(self.answers)

    async def stop(self) -> None:
        """Disconnect."""
        if self._started:
            await self.answers.stop()
            await self._session.stop()


class _InUse:
    """The publisher in use, or None. ``why`` says why there is none."""

    def __init__(self) -> None:
        self.publisher: Publisher | None = None
        self.why = NOWHERE


PUBLISHER = Part(_InUse)
"""The publisher of an application."""


def use_publisher(publisher: Publisher | None, why: str = NOWHERE) -> None:
    """Let ``publish`` and ``request`` send over ``publisher``. With None, they raise RequestError, which says ``why``."""
    in_use = current()[PUBLISHER]
    in_use.publisher, in_use.why = publisher, why


def publisher_in_use() -> Publisher:
    """Return the publisher of the running code. Raise RequestError where there is none."""
    in_use = current()[PUBLISHER]
    if in_use.publisher is None:
        raise RequestError(in_use.why)
    return in_use.publisher


async def publish(
    topic: str, payload: Any, *, qos: int = 0, retain: bool = False, properties: Properties | None = None
) -> None:
    """Publish a message from anywhere: from periodic work, a script or the shell.

    The parameters are those of ``core.context.Publish``. In a handler of an exactly-once route use ``context["publish"]``
    instead, whose messages leave with the commit.

    Raise TopicError, PayloadError and BrokerRefusedError. Raise RequestError where the process has no connection.
    """
    await publisher_in_use().publish(topic, payload, qos=qos, retain=retain, properties=properties)
