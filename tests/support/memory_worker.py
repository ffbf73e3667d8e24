"""The worker without a process: session and engine behind a broker in memory."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypedDict

from core.codecs.limits import DEFAULT, Limits
from core.database.current import configured
from core.delivery.backlog import Store
from core.delivery.engine import Engine, EngineOptions
from core.mqtt.publication import Publication
from core.publisher import Publisher
from core.records.dead_letter_table import DeadLetterTable
from core.retry import Retry
from core.session.session import Session
from core.transport.brokers.memory import MemoryBroker
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Unpack

    from core.delivery.transactions import ExactlyOnce
    from core.mqtt.message import Properties
    from core.records.dead_letters import Also, DeadLetter, DeadLetters
    from core.router import Router


class Collected:
    """Dead letters in a list; ``errors`` are raised first, one for each call."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []
        self.errors: list[Exception] = []

    async def add(self, dead_letter: DeadLetter, also: Also | None = None) -> None:
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        self.letters.append(dead_letter)


class WorkerOptions(TypedDict, total=False):
    """What tests set of a MemoryWorker.

    - ``limit``: how many messages may be in hand, 1000.
    - ``retry``, ``timeout``: of routes that name none. One attempt, 30 s.
    - ``broker``: one that is there already.
    - ``exactly_once``: whether the engine has the configured database, as in the application.
    - ``dead_letters``: the place for dead letters. Otherwise the table of the database, or a list where there is none.
    - ``limits``: of bodies.
    - ``session``: brings the messages. Otherwise one with the broker in memory.
    - ``publisher``: publishes what handlers publish. Otherwise one on the broker in memory.
    - ``backlog``: where messages wait for routes that stand. Nowhere, so that none stands.
    - ``breaker_after``: how many messages have to fail until their route stands.
    """

    limit: int
    retry: Retry
    timeout: float
    broker: MemoryBroker
    exactly_once: bool
    dead_letters: DeadLetters
    limits: Limits
    session: Session
    publisher: Publisher
    backlog: Store
    breaker_after: int


class MemoryWorker:
    """A session and an engine on a broker in memory."""

    def __init__(self, router: Router, **options: Unpack[WorkerOptions]) -> None:
        limit, dead_letters = options.get("limit", 1000), options.get("dead_letters")
        router.freeze()
        self.broker = options.get("broker") or MemoryBroker()
        self.dead_letters, self.last_resort = Collected(), Collected()
        self.session = options.get("session") or Session(
            self.broker.connector("worker", receive_maximum=limit), "memory", router.subscriptions()
        )
        self.publisher = options.get("publisher") or Publisher(
            self.broker.connector("publisher", clean_start=True), "memory"
        )
        database = configured() if options.get("exactly_once") else None
        self.engine = Engine(
            EngineOptions(
                router=router,
                link=self.session,
                outgoing=self.publisher,
                dead_letters=dead_letters
                or (self.dead_letters if database is None else DeadLetterTable(database.begin, 1000)),
                last_resort=self.last_resort,
                backlog=options.get("backlog") or Store(),
                breaker_after=options.get("breaker_after", 50),
                database=database,
                client_id="worker",
                broker="memory",
                retry=options.get("retry") or Retry(attempts=1),
                timeout=options.get("timeout", 30),
                limits=options.get("limits", DEFAULT),
                receive_maximum=limit,
                dedup_keep=3600,
            )
        )
        self.ledger = self.engine.ledger

    @property
    def exactly_once(self) -> ExactlyOnce:
        """What exactly-once routes need, which must be there."""
        assert self.engine.exactly_once is not None
        return self.engine.exactly_once

    async def start(self) -> None:
        await self.engine.load()
        self.engine.start()
        self.session.start(self.engine.consumer)
        await self.session.connected()

    async def stop(self, timeout: float = 5) -> None:
        await self.engine.finish(asyncio.Event(), timeout)
        await self.session.stop()
        await self.engine.stop()
        await self.publisher.stop()

    async def send(self, topic: str, body: bytes = b"1", *, qos: int = 1, properties: Properties | None = None) -> None:
        self.broker.publish(Publication(topic, body, qos, properties=properties))

    async def settled(self) -> None:
        """Wait until nothing is in hand, and all PUBACKs have left."""
        await until(lambda: self.ledger.in_hand == 0)
        await asyncio.sleep(0.01)
        assert self.ledger.balanced


@asynccontextmanager
async def running(router: Router, **options: Unpack[WorkerOptions]) -> AsyncIterator[MemoryWorker]:
    worker = MemoryWorker(router, **options)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()
        assert worker.ledger.balanced
