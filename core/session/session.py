"""A session with a broker, kept over any number of network connections."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from core.errors import BrokerRefusedError, ConnectionLostError, SessionTakenOverError, TransportError, one_line
from core.retry import Pauses
from core.session.publishing import Publishing
from core.transport.connection import SESSION_TAKEN_OVER, Listener

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.mqtt.message import Message
    from core.mqtt.publication import Publication
    from core.session.presence import Presence
    from core.transport.connection import Connack, Connect, Connection, Subscription

log = logging.getLogger("routemq.transport")

FIRST_PAUSE = 0.5
"""Seconds before the second attempt to connect."""
MAX_PAUSE = 30.0
"""Seconds between two attempts to connect at the most."""
REMIND_EVERY = 60.0
"""Seconds between two log lines about a connection that stays down."""
MAX_HOLD = 2.0
"""Seconds that the hold on the session may take to answer."""


class Hold(Protocol):
    """This process's hold on a session, as far as it can be known beside the broker. Both methods may raise anything."""

    async def is_held(self) -> bool:
        """Return whether no other process has taken the session."""

    async def subscribed(self) -> None:
        """Record that the session has the topic filters that it should have, and no others."""


class SessionListener(Listener, Protocol):
    """Whoever hears of a session. It can make ready for each connection, and for each SUBSCRIBE."""

    async def connecting(self) -> None:
        """Make ready for a connection. Raise nothing."""

    async def subscribing(self) -> None:
        """Make ready for SUBSCRIBE, and so for the messages of a session that is new to the broker.

        Raise ConnectionLostError where that is not possible now. The connection is then closed, and tried again.
        """


class Session:
    """A session that keeps one connection to the broker. It reconnects for ever, with growing, jittered pauses.

    - ``connect``: makes each connection.
    - ``address``: names the broker in the log.
    - ``subscriptions``: told to the broker on the first connection, and on each later one on which it has lost the session.
    - ``stale``: topic filters of routes that are gone. They are unsubscribed on the first connection.
    - ``hold``: asked before each reconnection, since not every broker says that another client took over.
    - ``presence``: the status to be published, retained: online on each connection, offline before DISCONNECT.

    The log has one line when the connection is down, one when the reason changes, one a minute while it stays down, and one
    when it is back.
    """

    def __init__(
        self,
        connect: Connect,
        address: str,
        subscriptions: Sequence[Subscription] = (),
        *,
        stale: Sequence[str] = (),
        hold: Hold | None = None,
        presence: Presence | None = None,
    ) -> None:
        self._connect = connect
        self._address = address
        self._subscriptions = tuple(subscriptions)
        self._stale = tuple(stale)
        self._hold = hold
        self._presence = presence
        self._publishing = Publishing(self._standing)
        self._telling: asyncio.Task[None] | None = None
        self._listener: SessionListener | None = None
        self._task: asyncio.Task[None] | None = None
        self._latest: Connection | None = None
        self._connection: Connection | None = None
        self._confirmed = False
        self._number = 0
        self._paused = False
        self._stopping = False
        self._lost = False
        self._losing: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._down_since: float | None = None
        self._told_at = 0.0
        self._told = ""
        self.connack: Connack | None = None

    # -- the connection ------------------------------------------------------------------------------------------------

    def start(self, listener: SessionListener) -> asyncio.Task[None]:
        """Begin to connect, and return the task that does. It ends with ``stop`` or a SessionTakenOverError only."""
        self._listener = listener
        self._task = asyncio.create_task(self._keep(listener), name="broker session")
        return self._task

    async def connected(self) -> None:
        """Wait until a connection stands and the broker has confirmed all subscriptions.

        All messages that an old session has collected come before that.
        """
        while not self._confirmed:
            await self._changed.wait()

    @property
    def stands(self) -> bool:
        """Return whether there is a connection, on which messages come and can be published."""
        return self._connection is not None

    async def stop(self) -> None:
        """Disconnect and keep the session.

        Nothing is unsubscribed, so that the broker collects what comes meanwhile.
        """
        self._stopping = True
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._presence is not None:
                await self._tell(connection, self._presence.offline())
            await connection.close()
        if self._telling is not None:
            await asyncio.wait([self._telling])
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    def lose(self) -> None:
        """Close the connection for good: another process has the session. The task of the session raises that."""
        if not self._lost:
            self._lost = True
            if self._latest is not None:
                self._losing = asyncio.create_task(self._latest.close(), name="lose session")

    async def _keep(self, listener: SessionListener) -> None:
        pauses = Pauses(FIRST_PAUSE, MAX_PAUSE, jitter=0.5)
        subscribed = established = False
        while not self._stopping:
            await listener.connecting()
            if self._lost:
                raise self._taken_over()
            self._number += 1
            # Messages can come and be handled before this code runs again. Their acknowledgements go to this connection.
            connection = self._latest = self._connect(listener, self._number)
            held = 0.0
            try:
                connack = await connection.open()
                began = monotonic()
                # A new session has no subscriptions, also where this attempt to make them fails.
                subscribed = subscribed and connack.session_present
                await self._begin(connection, connack, subscribed=subscribed)
                subscribed = established = True
                closure = await connection.closed()
                held = monotonic() - began
                self._ended()
                if self._stopping:
                    return
                if self._lost or closure.reason_code == SESSION_TAKEN_OVER:
                    raise self._taken_over()
                self._tell_down(f"connection to {self._address} lost: {closure.reason}")
            except SessionTakenOverError:
                raise
            except TransportError as error:
                self._ended()
                if self._stopping:
                    return
                self._tell_down(f"no connection: {one_line(error, name=False)}")
            finally:
                # A task that is cancelled leaves no socket behind.
                await asyncio.shield(connection.close())
            if held > MAX_PAUSE or (held and self._publishing.searching):
                # What the broker hangs up on is soon found, by a few connections.
                pauses.reset()
            if self._lost or (established and not await self._is_held()):
                raise self._taken_over()
            await asyncio.sleep(pauses.next())

    async def _begin(self, connection: Connection, connack: Connack, *, subscribed: bool) -> None:
        """Announce that ``connection`` stands, and subscribe.

        A session that the broker has kept, and on which this process ``subscribed`` before, needs no SUBSCRIBE.
        """
        old = connack.session_present
        if not (old and subscribed) and self._listener is not None:
            if old and self._paused:
                connection.pause_reading()
            await self._listener.subscribing()
        if old:
            # Its messages come from now on, and SUBACK may come behind all of them.
            await self._stands(connection, connack)
        if not (old and subscribed):
            await self._subscribe(connection, connack)
        if not old:
            await self._stands(connection, connack)
        self._confirmed = True
        self._wake()

    async def _subscribe(self, connection: Connection, connack: Connack) -> None:
        if self._stale and connack.session_present:
            await connection.unsubscribe(self._stale)
            log.info("unsubscribed topic filters that no route wants any more: %s", ", ".join(self._stale))
        self._stale = ()
        if self._subscriptions:
            try:
                await connection.subscribe(self._subscriptions)
            except BrokerRefusedError as error:
                # The topic filters that it did take stand.
                log.error("%s", error)  # noqa: TRY400 - the error says it all
        if self._hold is not None:
            try:
                async with asyncio.timeout(MAX_HOLD):
                    await self._hold.subscribed()
            except Exception as error:  # noqa: BLE001 - whatever the storage raises. The next start records them
                log.warning("the session's topic filters could not be recorded: %s", one_line(error))

    async def _tell(self, connection: Connection, status: Publication) -> None:
        """Send the worker's status, and do not wait for its PUBACK, which cannot be read while reading is paused.

        Should the connection end before PUBACK, the status is sent again on the next one.
        """

        async def tell() -> None:
            try:
                await connection.publish(status)
            except ConnectionLostError:
                log.debug("the connection was lost before the status was acknowledged")
            except BrokerRefusedError as error:
                # Mosquitto hangs up as well, so that each further status would cost a connection.
                self._presence = None
                log.warning("no further status is sent on %s: %s", status.topic, one_line(error, name=False))

        self._telling = asyncio.create_task(tell(), name="tell status")
        # Nothing else is published on this connection, so that one turn of the event loop sends it.
        await asyncio.sleep(0)

    async def _is_held(self) -> bool:
        if self._hold is None:
            return True
        try:
            async with asyncio.timeout(MAX_HOLD):
                return await self._hold.is_held()
        except Exception as error:  # noqa: BLE001 - the database may be down like the network. What is unknown stops nothing
            log.debug("it could not be found out who holds the session: %s", one_line(error))
            return True

    def _taken_over(self) -> SessionTakenOverError:
        return SessionTakenOverError(
            f"another client with the same client identifier took over the session at {self._address}. Set another "
            "MQTT_CLIENT_ID for each worker"
        )

    async def _stands(self, connection: Connection, connack: Connack) -> None:
        if self._paused:
            connection.pause_reading()
        self._connection = connection
        self.connack = connack
        if self._down_since is not None:
            log.warning("connected again to %s after %.1f s", self._address, monotonic() - self._down_since)
        self._down_since = None
        self._told = ""
        self._wake()
        if self._presence is not None:
            await self._tell(connection, self._presence.online())

    def _wake(self) -> None:
        self._changed.set()
        self._changed.clear()

    def _ended(self) -> None:
        self._connection = None
        self._confirmed = False

    def _tell_down(self, what: str) -> None:
        now = monotonic()
        if self._down_since is None:
            self._down_since = now
            log.error("%s. Trying again until it answers", what)
        elif what != self._told or now - self._told_at >= REMIND_EVERY:
            log.error("%s. Down for %.0f s now", what, now - self._down_since)
        else:
            return
        self._told, self._told_at = what, now

    # -- for the consumer ----------------------------------------------------------------------------------------------

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Acknowledge those of ``messages`` that came on the present connection, in order."""
        if self._latest is not None:
            number = self._number
            self._latest.acknowledge([message.packet_id for message in messages if message.connection == number])

    def pause_reading(self) -> None:
        """Stop reading, also on later connections."""
        self._paused = True
        # A connection that waits for its SUBACK is paused too. What the session has collected comes before SUBACK.
        if self._latest is not None:
            self._latest.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._paused = False
        if self._latest is not None:
            self._latest.resume_reading()

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """Subscribe on the present connection, or wait for one. The subscription is not repeated on the next connection.

        Raise BrokerRefusedError or ConnectionLostError.
        """
        await (await self._standing()).subscribe(subscriptions)

    async def unsubscribe(self, topic_filters: Sequence[str]) -> None:
        """Unsubscribe on the present connection, or wait for one. Raise ConnectionLostError."""
        await (await self._standing()).unsubscribe(topic_filters)

    async def _standing(self) -> Connection:
        while self._connection is None:
            await self._changed.wait()
        return self._connection

    async def publish(self, publication: Publication) -> None:
        """Publish on the present connection, or wait for one.

        At QoS 1 the message is sent again on each next connection until the broker has acknowledged it. At QoS 0 it is sent
        once. Raise BrokerRefusedError. Raise HungUpError where the broker closes one connection after the other on it.
        """
        await self._publishing.publish(publication)
