"""Whether a broker's packet identifiers prove that a message is one that it sent before."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from enum import Enum
from time import time
from typing import TYPE_CHECKING

from core.errors import BrokerUnreachableError, TransportError, one_line
from core.mqtt.publication import Publication
from core.transport.connection import Subscription

if TYPE_CHECKING:
    from core.mqtt.message import Message
    from core.transport.connection import Connack, Connect, Connection

log = logging.getLogger("routemq.transport")

MAX_ASKING = 3.0
"""Seconds that asking the broker may take. Most answer within a hundredth of that."""
VALID = 7 * 86_400.0
"""Seconds for which an answer holds. A broker may be upgraded, or another one may answer at its address."""
MAX_AGAIN = 1.0
"""Seconds after CONNACK within which a broker begins to send messages again."""
MAX_ENDING = 1.0
"""Seconds that ending the probe's session may take."""
JUST_ASKED = 60.0
"""Seconds within which the broker is not asked again, and no further doubt counts."""
MAX_DOUBTS = 3
"""Doubts of one process about which the broker is asked. The next one is believed, whatever the broker answers."""
PROBE = "-probe"
"""What the client identifier of the probe has behind the worker's."""
PROBE_TOPICS = "routemq/probe/"
"""What the topics of the probe begin with."""


class Verdict(Enum):
    """What a broker does with packet identifiers, in words that can follow the address of the broker."""

    UNKNOWN = "has not shown how it uses packet identifiers"
    CIRCLE = "sends a message again under its packet identifier, with DUP set, and numbers packets in a circle"
    REUSES = "gives a packet identifier to another message as soon as it is free"
    RENUMBERS = "sends a message again under another packet identifier"
    NO_DUP = "sends a message again without setting DUP"
    NO_SESSION = "does not send again what was not acknowledged when the connection ended"

    @property
    def recorded(self) -> bool:
        """Return whether an identifier, together with DUP, tells a message that was committed in an earlier process."""
        return self in {Verdict.CIRCLE, Verdict.UNKNOWN}

    @property
    def joined(self) -> bool:
        """Return whether it tells a message that is still in hand."""
        return self is not Verdict.RENUMBERS


def meaning(verdict: Verdict) -> str:
    """Return what ``verdict`` means for exactly-once routes, as a sentence."""
    if verdict is Verdict.CIRCLE:
        return "So a message that comes again is known"
    if verdict is Verdict.NO_SESSION:
        return "So messages in hand are lost with the connection. Have the broker keep sessions, or take another one"
    return (
        "So a message that comes again after a crash or a lost connection cannot be told from a new one, and is stored "
        "twice. Name a key of the application in dedup= of exactly_once routes"
    )


def may_be_asked(client_id: str) -> str:
    """Return what lets the broker be asked, as a sentence."""
    return f"Allow the client {client_id + PROBE} to subscribe and to publish to {PROBE_TOPICS}+, so that it can be asked"


class _Heard:
    """The listener of a probe."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self.messages: asyncio.Queue[Message] = asyncio.Queue()

    def receive(self, message: Message) -> None:
        if message.topic == self._topic and message.qos:
            self.messages.put_nowait(message)

    def connected(self, connack: Connack) -> None:
        """Do nothing."""

    def disconnected(self) -> None:
        """Do nothing."""


async def probe(clean: Connect, kept: Connect) -> Verdict:
    """Find out what a broker does with packet identifiers, by messages to ourselves.

    ``clean`` makes connections of a client whose session ends with them, and ``kept`` those of the same client with a
    session that outlives them. Raise TransportError where the broker cannot be reached or refuses the probe. Raise
    TimeoutError where it takes too long.
    """
    topic = PROBE_TOPICS + secrets.token_hex(8)
    async with asyncio.timeout(MAX_ASKING):
        await _end_session(clean)
    try:
        async with asyncio.timeout(MAX_ASKING):
            return await _probe(kept, topic)
    finally:
        # Whatever is left of it is ended before the next probe.
        with contextlib.suppress(TransportError, TimeoutError):
            async with asyncio.timeout(MAX_ENDING):
                await _end_session(clean)


async def _probe(kept: Connect, topic: str) -> Verdict:
    heard = _Heard(topic)
    connection = kept(heard, 1)
    try:
        await connection.open()
        await connection.subscribe([Subscription(topic, 1)])
        first = await _sent(connection, heard, topic)
        connection.acknowledge([first.packet_id])
        # A broker that takes the lowest free identifier takes that of the first message again.
        second = await _sent(connection, heard, topic)
        # One before the third is acknowledged, so that a broker which numbers from 1 again gives the third another one.
        third = await _sent(connection, heard, topic)
        connection.acknowledge([second.packet_id])
    finally:
        await connection.close()
    heard = _Heard(topic)
    connection = kept(heard, 2)
    try:
        if not (await connection.open()).session_present:
            return Verdict.NO_SESSION
        try:
            async with asyncio.timeout(MAX_AGAIN):
                again = await _come(heard, third.body)
        except TimeoutError:
            # Either it is slow, or it sends nothing again. A new message comes behind the old ones.
            await _sent(connection, heard, topic)
            return Verdict.NO_SESSION
        if not again.dup:
            return Verdict.NO_DUP
        if again.packet_id != third.packet_id:
            return Verdict.RENUMBERS
        connection.acknowledge([again.packet_id])
        fourth = await _sent(connection, heard, topic)
        connection.acknowledge([fourth.packet_id])
    finally:
        await connection.close()
    taken = {first.packet_id, second.packet_id, third.packet_id}
    return Verdict.CIRCLE if len(taken) == 3 and fourth.packet_id not in taken else Verdict.REUSES


async def _sent(connection: Connection, heard: _Heard, topic: str) -> Message:
    """Publish a message to ourselves, and return it as it comes."""
    body = secrets.token_bytes(8)
    await connection.publish(Publication(topic, body, qos=1))
    return await _come(heard, body)


async def _come(heard: _Heard, body: bytes) -> Message:
    """Wait for the message with ``body``, and return it."""
    while True:
        message = await heard.messages.get()
        if message.body == body:
            return message


async def _end_session(clean: Connect) -> None:
    connection = clean(_Heard(""), 0)
    try:
        await connection.open()
    finally:
        await connection.close()


class Identity:
    """What is known of a broker's packet identifiers, and the question to the broker where nothing is.

    Without ``ask_broker`` the identifiers are trusted.

    - ``address`` and ``client_id``: name the broker and the worker in the log.
    - ``ask_broker``: asks the broker (see ``probe``).
    - ``keep``: keeps a verdict for later processes.
    """

    def __init__(
        self,
        address: str = "",
        client_id: str = "",
        ask_broker: Callable[[], Awaitable[Verdict]] | None = None,
        keep: Callable[[Verdict], Awaitable[None]] | None = None,
    ) -> None:
        self._address = address
        self._client_id = client_id
        self._ask_broker = ask_broker
        self._keep = keep
        self._due = ask_broker is not None
        self._asked_at = 0.0
        self._doubted_at = 0.0
        self._doubts = 0
        self._told: Verdict | None = None
        self._doubting: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self.verdict = Verdict.UNKNOWN
        # Asked for each message.
        self.recorded = True
        self.joined = True

    def remember(self, name: str | None, asked_at: float) -> None:
        """Take over the verdict that an earlier process kept at ``asked_at``, in seconds since the epoch."""
        found = next((verdict for verdict in Verdict if verdict.name == name), None)
        if found is not None and 0 <= time() - asked_at < VALID:
            self._due = False
            self._set(found)

    def renew(self) -> None:
        """Have the broker asked again, because it has lost the session. It may be another one."""
        self._due = self._ask_broker is not None and time() - self._asked_at > JUST_ASKED

    async def ask(self) -> None:
        """Ask the broker, if that is due. It is asked again with the next connection where it cannot be reached."""
        if not self._due or self._ask_broker is None:
            return
        async with self._lock:
            if self._due:
                await self._ask(self._ask_broker, Verdict.UNKNOWN)

    async def _ask(self, ask_broker: Callable[[], Awaitable[Verdict]], seen: Verdict) -> None:
        """Ask the broker. What was ``seen`` counts where it refuses to be asked."""
        try:
            verdict = await ask_broker()
        except BrokerUnreachableError as error:
            log.debug("the broker could not be asked how it uses packet identifiers: %s", one_line(error))
            return
        except Exception as error:  # noqa: BLE001 - whatever keeps it from an answer, the worker goes on without one
            if seen is Verdict.UNKNOWN:
                self._tell_unknown("it did not answer" if isinstance(error, TimeoutError) else one_line(error, name=False))
            verdict = seen
        self._due = False
        self._asked_at = time()
        if verdict is not Verdict.UNKNOWN:
            await self._found(verdict)

    async def _found(self, verdict: Verdict) -> None:
        self._set(verdict)
        if self._keep is not None:
            try:
                await self._keep(verdict)
            except Exception as error:  # noqa: BLE001 - whatever the storage raises. The next process asks again
                log.debug("how the broker uses packet identifiers could not be kept: %s", one_line(error))

    def _set(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.recorded, self.joined = verdict.recorded, verdict.joined
        if not verdict.recorded and self._told is not verdict:
            self._told = verdict
            log.warning("the broker %s %s. %s", self._address, verdict.value, meaning(verdict))

    def _tell_unknown(self, reason: str) -> None:
        if self._told is not Verdict.UNKNOWN:
            self._told = Verdict.UNKNOWN
            told = "the broker %s %s: %s. Its identifiers are trusted. %s"
            log.warning(told, self._address, Verdict.UNKNOWN.value, reason, may_be_asked(self._client_id))

    def doubt(self, seen: Verdict) -> None:
        """Record that the broker was seen to do what ``seen`` says, which the verdict so far does not allow.

        It is asked again, because a broker that was set back to an older state of its sessions looks the same for a
        while. What was seen counts where the broker refuses to be asked, and where it is seen again and again.
        """
        now = time()
        if self._ask_broker is None or not self.recorded or now - self._doubted_at < JUST_ASKED:
            return
        self._doubted_at = now
        self._doubts += 1
        self._doubting = asyncio.get_running_loop().create_task(self._settle(seen), name="ask the broker")

    async def _settle(self, seen: Verdict) -> None:
        assert self._ask_broker is not None  # noqa: S101 - doubt() has looked
        async with self._lock:
            if self._doubts > MAX_DOUBTS:
                await self._found(seen)
            else:
                await self._ask(self._ask_broker, seen)

    async def stop(self) -> None:
        """Stop asking."""
        if self._doubting is not None:
            self._doubting.cancel()
            await asyncio.wait([self._doubting])
