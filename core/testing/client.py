"""The client that tests of applications use: messages go the whole way, from bytes to rows, without a network."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any

from core import rate_limit
from core.codecs import encode_any
from core.database.current import configured_or_none
from core.delivery.engine import Engine, EngineOptions
from core.errors import NoRouteError, RouteMQError
from core.middleware import Passed
from core.mqtt.message import Message
from core.mqtt.topics import check_filter, check_topic
from core.periodic import jobs_of
from core.publisher import Publisher, use_publisher
from core.records.dead_letter_table import DeadLetterTable
from core.retry import Retry
from core.runtime.clock import ManualClock, clock, use_clock
from core.testing.devices import Devices, Published, published
from core.transport.brokers.memory import MemoryBroker
from core.transport.connection import Connack

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence
    from types import TracebackType
    from typing import Self

    from core.controller import Controller
    from core.handling.delivery import Delivery
    from core.mqtt.message import Properties
    from core.records.dead_letters import Also, DeadLetter, DeadLetters
    from core.router import Router

MAX_HELD = 1000
"""Messages in hand."""
MAX_DEAD_LETTERS = 100_000
"""Dead letters in the table."""


class _Sent:
    """A message that was sent, and what became of it so far."""

    def __init__(self, message: Message, key: Hashable) -> None:
        self.message = message
        self.key = key
        self.changed = asyncio.Event()
        self.runs_again_at: float | None = None
        self.value: Any = None
        self.error: BaseException | None = None


class _Letters:
    """Keeps dead letters in ``place``, where the application keeps them, and in a list."""

    def __init__(self, kept: list[DeadLetter], place: DeadLetters | None) -> None:
        self._kept = kept
        self._place = place

    async def add(self, dead_letter: DeadLetter, also: Also | None = None) -> None:
        if self._place is not None:
            await self._place.add(dead_letter, also)
        self._kept.append(dead_letter)


class _NoNetwork:
    """The session of a test client. Nothing is read from a network, and nobody gets a PUBACK."""

    def pause_reading(self) -> None:
        """Do nothing, because nothing is read."""

    def resume_reading(self) -> None:
        """Do nothing, because nothing is paused."""

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Do nothing, because nobody waits for a PUBACK."""

    def lose(self) -> None:
        """Do nothing, because nobody else has the session."""


class TestClient:
    """Sends messages through the routes of ``router``, with the real consumer, on the database that ``Model`` has.

    ::

        async with TestClient(router) as client:
            assert await client.send("devices/1/data", {"value": 21.5}) == {"status": "success", "reading_id": 1}

    - ``router``: the routes. No further route can be registered.
    - ``controllers``: those whose periodic work (``@every``) is to run. By default there are none.
    - ``retry``: the policy of routes that name none. By default it is ``Retry()``.
    - ``timeout``: seconds for handlers whose routes name none. By default 30.

    The time stands still. Retries and periodic work run when ``advance`` moves it. Rate limits go by that time too, and
    begin with empty counts.

    Everything that is published goes to a broker in memory, by ``core.publisher.publish`` and ``core.request.request`` as
    well. ``published`` lists it, and ``answer`` makes devices that answer it. ``dead_letters`` lists the dead letters, the
    oldest first.

    Raise RouteMQError where a route is ``exactly_once`` and no database is configured.
    """

    # pytest would take it for a test.
    __test__ = False

    def __init__(
        self,
        router: Router,
        *,
        controllers: Iterable[type[Controller]] = (),
        retry: Retry | None = None,
        timeout: float = 30,
    ) -> None:
        router.freeze()
        self._router = router
        self._broker = MemoryBroker()
        self._publisher = Publisher(self._broker.connector("application", clean_start=True), "memory")
        self._devices = Devices(self._broker)
        self._numbers = count(1)
        self._open: dict[int, _Sent] = {}
        self._last: dict[str, Message] = {}
        self._timeout = timeout
        self.clock = ManualClock()
        self.dead_letters: list[DeadLetter] = []
        database = configured_or_none()
        if database is None and any(route.options.delivery == "exactly_once" for route in router.routes):
            raise RouteMQError(
                "a route is exactly_once, and no database is configured. Use the fixture db, or call Model.configure(url)"
            )
        table = None if database is None else DeadLetterTable(database.begin, MAX_DEAD_LETTERS)
        self._engine = Engine(
            EngineOptions(
                router=router,
                link=_NoNetwork(),
                outgoing=self._publisher,
                dead_letters=_Letters(self.dead_letters, table),
                last_resort=_Letters(self.dead_letters, None),
                database=database,
                client_id="test",
                broker="test",
                retry=retry or Retry(),
                timeout=timeout,
                receive_maximum=MAX_HELD,
                jobs=jobs_of(controllers),
                clock=self.clock,
                observer=self,
            )
        )
        self.ledger = self._engine.ledger

    async def __aenter__(self) -> Self:
        await self._engine.load()
        self._engine.consumer.connected(Connack(session_present=True, version="5"))
        self._before = clock()
        use_clock(self.clock)
        rate_limit.start_anew()
        await self._devices.start()
        use_publisher(self._publisher)
        self._engine.start()
        await _a_few_turns()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        hurry = asyncio.Event()
        hurry.set()
        await self._engine.finish(hurry, 0)
        await self._engine.stop()
        use_clock(self._before)
        rate_limit.start_anew()
        use_publisher(None)
        await self._publisher.stop()
        await self._devices.stop()

    @property
    def published(self) -> list[Published]:
        """The messages that the application published, in order. The latest 10,000 are kept."""
        return [published(publication) for publication in self._broker.published]

    # -- sending -------------------------------------------------------------------------------------------------------

    async def send(
        self,
        topic: str,
        payload: Any = b"",
        *,
        qos: int = 1,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> Any:
        """Send a message as a device would. Return what its handler returned, or raise what it raised.

        - ``topic``: where to.
        - ``payload``: bytes are sent as they are, str in UTF-8, everything else is encoded by the route's codec.
        - ``qos``: 0 or 1. By default 1.
        - ``retain``: whether it comes as a retained message. By default it does not.
        - ``properties``: those of MQTT 5 (3.3.2.3).

        A message that failed may run again, once ``advance`` moves the time. While it waits, later messages with its
        ordering key wait behind it: sending one of them returns None.
        """
        body = encode_any(payload) if isinstance(payload, bytes | bytearray | str) else self._encode(topic, payload)
        packet_id = next(self._numbers) % 65_535 + 1 if qos else 0
        message = Message(check_topic(topic), body, qos, packet_id, 1, properties, retain=retain)
        self._last[topic] = message
        return await self._deliver(message)

    async def redeliver(self, topic: str | None = None) -> Any:
        """Send the last message, or the last one on ``topic``, once more, as a broker does that got no acknowledgement.

        It has the same packet identifier, and DUP set. Return what ``send`` returns. Return None where the message is known,
        and does not run. Raise RouteMQError where nothing was sent before.
        """
        last = self._last.get(topic) if topic is not None else next(reversed(self._last.values()), None)
        if last is None:
            raise RouteMQError(
                f"no message was sent{f' on {topic!r}' if topic else ''} that could be sent again. Send one first"
            )
        again = Message(last.topic, last.body, last.qos, last.packet_id, 1, last.properties, retain=last.retain, dup=True)
        return await self._deliver(again)

    def answer(self, topic_filter: str, answer: Any, *, on: str | None = None) -> None:
        """Answer what the application sends to ``topic_filter``, as the device would for ``core.request.request``.

        - ``topic_filter``: the topics on which the device listens.
        - ``answer``: the payload of the answer, or a function that takes the message (a Published) and returns the payload.
          None is no answer.
        - ``on``: the topic of the answer. None, the default, means the response topic of the message.
        """
        self._devices.answers.insert(0, (check_filter(topic_filter), answer, on))

    def _encode(self, topic: str, payload: Any) -> bytes:
        try:
            return self._router.match(topic).route.encode(payload)
        except NoRouteError:
            return encode_any(payload)

    async def _deliver(self, message: Message) -> Any:
        sent = _Sent(message, self._key(message))
        known = self.ledger.deduplicated
        self._open[id(message)] = sent
        self._engine.consumer.receive(message)
        if self.ledger.deduplicated > known:
            del self._open[id(message)]
            return None
        await self._settle(sent)
        if sent.error is None:
            await self._engine.flushed()
        # The acknowledgement leaves in the next turn.
        await _a_few_turns()
        if sent.error is not None:
            raise sent.error
        return sent.value

    def _key(self, message: Message) -> Hashable:
        try:
            route, params = self._router.match(message.topic)
            return route.key(message, params)
        except Exception:  # noqa: BLE001 - the consumer tells what keeps a message from having a key
            return message.topic

    # -- time ----------------------------------------------------------------------------------------------------------

    async def advance(self, seconds: float) -> None:
        """Move the time on by ``seconds``. What is due by then, retries and periodic work, has run when this returns."""
        end = self.clock.time() + seconds
        while True:
            due = self.clock.next_due()
            if due is None or due > end:
                break
            self.clock.move_to(due)
            for sent in self._open.values():
                if sent.runs_again_at is not None and sent.runs_again_at <= due:
                    sent.runs_again_at = None
                    sent.changed.clear()
            await _a_few_turns()
            await self._engine.periodic.idle()
            await self._settle()
        self.clock.move_to(end)
        await self._engine.flushed()

    async def _settle(self, wanted: _Sent | None = None) -> None:
        """Wait until nothing runs. With ``wanted``, wait until that message has run, or waits behind another one."""
        while True:
            waiting = {sent.key for sent in self._open.values() if sent.runs_again_at is not None and sent.key is not None}
            running = [
                sent
                for sent in self._open.values()
                if not sent.changed.is_set() and sent.key not in waiting and wanted in {None, sent}
            ]
            if not running:
                return
            try:
                async with asyncio.timeout(self._timeout + 5):
                    await running[0].changed.wait()
            except TimeoutError:
                raise RouteMQError(
                    f"the message on {running[0].message.topic!r} has no end yet, because the database does not answer. See "
                    "the log"
                ) from None

    # -- told by the dispatch ------------------------------------------------------------------------------------------

    def done(self, delivery: Delivery) -> None:
        """Record that the handler of ``delivery`` returned."""
        sent = self._open.pop(id(delivery.message), None)
        if sent is not None:
            sent.value = None if isinstance(delivery.value, Passed) else delivery.value
            sent.error = None
            sent.changed.set()

    def runs_again(self, delivery: Delivery, error: BaseException, seconds: float) -> None:
        """Record that ``delivery`` failed, and that it runs again in ``seconds``."""
        sent = self._open.get(id(delivery.message))
        if sent is not None:
            sent.error = error
            sent.runs_again_at = self.clock.time() + seconds
            sent.changed.set()

    def failed(self, delivery: Delivery, error: BaseException) -> None:
        """Record that ``delivery`` failed for good."""
        sent = self._open.pop(id(delivery.message), None)
        if sent is not None:
            sent.error = error
            sent.changed.set()


async def _a_few_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)
