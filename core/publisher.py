"""Publishes messages, over a connection of its own; ``publish`` does so from anywhere in the process."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from core.codecs import encode_any
from core.errors import RequestError
from core.mqtt.topics import check_topic
from core.session.answers import Answers
from core.session.session import Session

if TYPE_CHECKING:
    from core.mqtt.message import Message, Properties
    from core.transport.connection import Connect

NOWHERE = (
    "there is no connection to publish on: publish() and request() work in the worker, in `python main.py shell`, and "
    "within `async with bootstrap.script.script():`"
)


class Publisher:
    """Publishes over a session that is opened by the first message, and takes the answers to requests in on it.

    It is not the worker's session: that one is not read while too much is in hand, and a PUBACK or an answer awaited by a
    handler would then never come. ``response_topic`` is where devices answer; without it one that nobody else has.
    """

    def __init__(self, connect: Connect, address: str, response_topic: str | None = None) -> None:
        self._session = Session(connect, address)
        self._started = False
        self.answers = Answers(self._session, response_topic or f"routemq/{secrets.token_hex(8)}/responses")

    async def publish(
        self, topic: str, payload: Any, *, qos: int = 0, retain: bool = False, properties: Properties | None = None
    ) -> None:
        """Publish; see ``core.context.Publish``. Raises TopicError, PayloadError and BrokerRefusedError."""
        _check(topic, qos)
        body = encode_any(payload)
        self._start()
        await self._session.publish(topic, body, qos=qos, retain=retain, properties=properties)

    async def ask(
        self, topic: str, body: bytes, *, timeout: float, reply: str | None, qos: int, properties: Properties | None
    ) -> Message:
        """Publish ``body`` and give the answer; see ``core.request.request``."""
        _check(topic, qos)
        self._start()
        return await self.answers.ask(topic, body, timeout=timeout, reply=reply, qos=qos, properties=properties)

    def _start(self) -> None:
        if not self._started:
            self._started = True
            self._session.start(self.answers)

    async def stop(self) -> None:
        """Disconnect."""
        if self._started:
            await self.answers.stop()
            await self._session.stop()


def _check(topic: str, qos: int) -> None:
    if qos not in {0, 1}:
        raise ValueError(f"qos={qos!r} is neither 0 nor 1")
    check_topic(topic)


class _Process:
    """What this process publishes on; None where that is not to be, and ``why``."""

    publisher: Publisher | None = None
    why = NOWHERE


def set_current(publisher: Publisher | None, why: str = NOWHERE) -> None:
    """Have ``publish`` and ``request`` of this process go over ``publisher``, or say ``why`` they cannot."""
    _Process.publisher, _Process.why = publisher, why


def current() -> Publisher:
    """Give what this process publishes on. Raises RequestError where there is nothing."""
    if _Process.publisher is None:
        raise RequestError(_Process.why)
    return _Process.publisher


async def publish(
    topic: str, payload: Any, *, qos: int = 0, retain: bool = False, properties: Properties | None = None
) -> None:
    """Publish from anywhere, as ``context["publish"]`` does within a handler: from periodic work, scripts, the shell.

    In a handler of an exactly-once route use ``context["publish"]``, whose messages leave with the commit. Raises
    TopicError, PayloadError, BrokerRefusedError, and RequestError where the process has no connection.
    """
    await current().publish(topic, payload, qos=qos, retain=retain, properties=properties)
