"""The requests that wait for answers of devices, and the answers that come in."""

from __future__ import annotations

import asyncio
import logging
import secrets
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING

from core.errors import BrokerUnreachableError, ConnectionLostError, RequestError, RequestTimeoutError
from core.mqtt.message import Properties
from core.mqtt.topics import matches
from core.session.filters import Filters
from core.transport.connection import Subscription

if TYPE_CHECKING:
    from core.mqtt.message import Message
    from core.mqtt.publication import Publication
    from core.session.session import Session
    from core.transport.connection import Connack

log = logging.getLogger("routemq.requests")

MAX_WAITING = 1_000
"""Requests under way at once. Further ones wait for their turn, within their own timeout."""
CORRELATION = 16
"""Bytes of the correlation data of a request."""
TELL_EVERY = 60.0
"""Seconds between two log lines about answers that nobody waits for."""


class _Line:
    """The requests that wait for messages on one topic filter, the oldest first."""

    def __init__(self) -> None:
        self.users = 0
        self.waiting: dict[int, asyncio.Future[Message]] = {}


class Answers:
    """The listener of the publisher's session. It hands each answer to the request that waits for it.

    An answer by MQTT 5 comes on ``response_topic`` and carries the correlation data of its request (MQTT 5, 4.10). A
    request with a topic filter of its own gets the next message on that, behind the older requests with the same filter.
    ``late`` counts the messages that nobody waits for, and those that were retained before.
    """

    def __init__(self, session: Session, response_topic: str) -> None:
        self.late = 0
        self._session = session
        self._response_topic = response_topic
        self._filters = Filters(session)
        self._slots = asyncio.Semaphore(MAX_WAITING)
        self._numbers = count(1)
        self._by_correlation: dict[bytes, asyncio.Future[Message]] = {}
        self._lines: dict[str, _Line] = {}
        self._told_at = 0.0
        self._told = 0
        self._connected_at = 0.0

    @property
    def waiting(self) -> int:
        """The number of requests that wait for an answer."""
        return len(self._by_correlation) + sum(line.users for line in self._lines.values())

    @property
    def topic_filters(self) -> frozenset[str]:
        """The topic filters that the broker has for answers."""
        return self._filters.had

    # -- told by the session -------------------------------------------------------------------------------------------

    async def connecting(self) -> None:
        """Do nothing, because each connection is made ready by its subscriptions."""

    async def subscribing(self) -> None:
        """Do nothing, because nothing of an earlier session is known."""

    def connected(self, connack: Connack) -> None:
        """Subscribe again on the new connection."""
        self._connected_at = monotonic()
        self._filters.connected()

    def disconnected(self) -> None:
        """Let all requests wait on. Their answers may come on the next connection."""

    def receive(self, message: Message) -> None:
        """Acknowledge an answer and hand it to its request."""
        if message.qos:
            self._session.acknowledge([message])
        waiting = None if message.retain or message.fault is not None else self._waiting_for(message)
        if waiting is not None:
            waiting.set_result(message)
            return
        self.late += 1
        now = monotonic()
        if not self._told or now - self._told_at >= TELL_EVERY:
            number, self._told, self._told_at = self.late - self._told, self.late, now
            log.warning(
                "%d answer%s came late, malformed or to no request, the latest on %s%s",
                number,
                "s" * (number != 1),
                message.topic[:200],
                "" if message.fault is None else f": {message.fault}",
            )

    def _waiting_for(self, message: Message) -> asyncio.Future[Message] | None:
        """Remove the request that ``message`` answers from those that wait, and return its future. None if there is none."""
        if message.topic == self._response_topic and message.properties is not None:
            found = self._by_correlation.pop(message.properties.get("correlation_data", b""), None)
            if found is not None and not found.done():
                return found
        exact = self._lines.get(message.topic)
        lines = [exact] if exact is not None else []
        lines += [
            line
            for topic_filter, line in self._lines.items()
            if ("+" in topic_filter or "#" in topic_filter) and matches(topic_filter, message.topic)
        ]
        # A request that was cancelled in this turn of the event loop still stands here.
        oldest = min((number for line in lines for number, one in line.waiting.items() if not one.done()), default=None)
        return next((line.waiting.pop(oldest) for line in lines if oldest in line.waiting), None) if oldest else None

    # -- asked by requests ---------------------------------------------------------------------------------------------

    async def ask(self, publication: Publication, *, timeout: float, reply: str | None) -> Message:
        """Publish, and return the answer. See ``core.request.request``.

        Raise RequestTimeoutError where none has come within ``timeout`` seconds in all. Its cause is a
        BrokerUnreachableError if the device had less than half of that time, as there was no connection.
        """
        try:
            async with asyncio.timeout(timeout), self._slots:
                if reply is None:
                    return await self._by_response_topic(publication)
                return await self._by_filter(publication, reply)
        except TimeoutError:
            stood = monotonic() - self._connected_at if self._session.stands else 0.0
            away = BrokerUnreachableError("there was no connection to the broker") if stood < timeout / 2 else None
            raise RequestTimeoutError(f"no answer from {publication.topic!r} within {timeout:g} s") from away

    async def _by_response_topic(self, publication: Publication) -> Message:
        properties = publication.properties or {}
        taken = {"response_topic", "correlation_data"} & properties.keys()
        if taken:
            raise RequestError(
                f"request() sets {' and '.join(sorted(taken))} itself. Leave it out of properties=, or name the topic of "
                "the answer: request(..., reply='...')"
            )
        await self._session.connected()
        if self._session.connack is not None and self._session.connack.version != "5":
            raise RequestError(
                f"the connection speaks MQTT {self._session.connack.version}, which has no response topics. Name the topic "
                f"on which {publication.topic!r} answers: request(..., reply='...')"
            )
        await self._filters.add(Subscription(self._response_topic, 1, retained=False))
        # Random as a whole, so that whoever knows one cannot guess another and answer in the place of its device.
        correlation = secrets.token_bytes(CORRELATION)
        told = Properties(**properties, response_topic=self._response_topic, correlation_data=correlation)
        waiting = self._by_correlation[correlation] = asyncio.get_running_loop().create_future()
        try:
            return await self._published(waiting, publication._replace(properties=told))
        finally:
            self._by_correlation.pop(correlation, None)

    async def _by_filter(self, publication: Publication, reply: str) -> Message:
        line = self._lines.setdefault(reply, _Line())
        line.users += 1
        number = next(self._numbers)
        try:
            await self._filters.add(Subscription(reply, 1, retained=False))
            waiting = line.waiting[number] = asyncio.get_running_loop().create_future()
            return await self._published(waiting, publication)
        finally:
            line.waiting.pop(number, None)
            line.users -= 1
            if not line.users:
                del self._lines[reply]
                self._filters.remove(reply)

    async def _published(self, waiting: asyncio.Future[Message], publication: Publication) -> Message:
        await self._session.publish(publication)
        return await waiting

    async def stop(self) -> None:
        """End the requests that still wait with a ConnectionLostError."""
        await self._filters.stop()
        lines = [line.waiting for line in self._lines.values()]
        for waiting in [*self._by_correlation.values(), *(one for line in lines for one in line.values())]:
            if not waiting.done():
                waiting.set_exception(ConnectionLostError("the connection was closed before the answer came"))
                # Its request sees the error, unless that still waits for its PUBACK.
                waiting.exception()
