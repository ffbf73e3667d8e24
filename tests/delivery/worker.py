"""The worker without a process: session, consumer and dispatch behind a broker in memory."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from core.database import ambient
from core.delivery.acknowledge import Acknowledgements
from core.delivery.consumer import Consumer
from core.delivery.ledger import Ledger
from core.delivery.transactions import ExactlyOnce
from core.handling.dispatch import Dispatch
from core.publisher import Publisher
from core.records.dead_letters import DeadLetterTable
from core.records.outbox import Outbox
from core.records.packets import Processed
from core.retry import Retry
from core.session.session import Session
from core.transport.brokers.memory import MemoryBroker
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from core.records.dead_letters import DeadLetter
    from core.router import Router


class Collected:
    """Dead letters in a list; ``errors`` are raised first, one for each call."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []
        self.errors: list[Exception] = []

    async def add(self, dead_letter: DeadLetter, also: Any = None) -> None:
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        self.letters.append(dead_letter)


class MemoryWorker:
    def __init__(
        self,
        router: Router,
        *,
        limit: int = 1000,
        retry: Retry | None = None,
        timeout: float = 30,
        broker: MemoryBroker | None = None,
        exactly_once: bool = False,
    ) -> None:
        router.freeze()
        self.broker = broker or MemoryBroker()
        self.ledger = Ledger()
        self.dead_letters, self.last_resort = Collected(), Collected()
        self.session = Session(self.broker.connector("worker", receive_maximum=limit), "memory", router.subscriptions())
        self.publisher = Publisher(self.broker.connector("publisher", clean_start=True), "memory")
        acknowledgements = Acknowledgements(self.session.acknowledge)
        self.dispatch = Dispatch(
            self.ledger,
            acknowledgements,
            self.dead_letters,
            self.last_resort,
            self.publisher.publish,
            "worker",
            retry or Retry(attempts=1),
            timeout,
        )
        self.mode: ExactlyOnce | None = None
        self.outbox: Outbox | None = None
        if exactly_once:
            # As in the application, on the configured database.
            database = ambient.database()
            self.outbox = Outbox(database.begin, self.publisher.publish, "worker")
            processed = Processed(database.begin, "worker", "memory")
            self.mode = ExactlyOnce(database.writing, processed, self.outbox, "worker", 3600)
            self.dispatch._dead_letters = DeadLetterTable(database.begin, 1000)
        self.consumer = Consumer(
            router, self.ledger, acknowledgements, self.dispatch, self.session, limit, exactly_once=self.mode
        )

    async def start(self) -> None:
        if self.mode is not None and self.outbox is not None:
            await self.mode.processed.load()
            self.outbox.start()
        self.session.start(self.consumer)
        await self.session.connected()

    async def stop(self, timeout: float = 5) -> None:
        await self.consumer.stop(timeout)
        await self.session.stop()
        if self.outbox is not None:
            await self.outbox.stop()
        await self.publisher.stop()

    async def send(self, topic: str, body: bytes = b"1", **how: Any) -> None:
        self.broker.publish(topic, body, **{"qos": 1} | how)

    async def settled(self) -> None:
        """Wait until nothing is in hand, and all PUBACKs have left."""
        await until(lambda: self.ledger.in_hand == 0)
        await asyncio.sleep(0.01)
        assert self.ledger.balanced


@asynccontextmanager
async def running(router: Router, **options: Any) -> AsyncIterator[MemoryWorker]:
    worker = MemoryWorker(router, **options)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()
        assert worker.ledger.balanced
