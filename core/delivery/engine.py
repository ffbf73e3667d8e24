"""The engine: everything between a session with a broker and a database, put together in one place."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from core.codecs.limits import DEFAULT, Limits
from core.delivery.acknowledge import Acknowledgements
from core.delivery.backlog import Backlog, Store
from core.delivery.consumer import Consumer, Intake
from core.delivery.ledger import Ledger
from core.delivery.transactions import ExactlyOnce
from core.delivery.window import Reading, Window
from core.errors import StartError
from core.handling.dispatch import Dispatch
from core.handling.failures.burial import Burial
from core.handling.failures.circuit import Circuits
from core.handling.failures.outage import Outage
from core.handling.runner import Runner
from core.periodic import Job, Periodic
from core.records.claims import ClaimTable
from core.records.outbox import Outbox
from core.records.packets import Packets
from core.records.session_hold import Fence
from core.retry import Retry
from core.routing.overlaps import Copies
from core.runtime.clock import Clock, SystemClock
from core.session.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.database.engine import Database
    from core.handling.dispatch import Observer
    from core.mqtt.message import Message
    from core.publisher import Outgoing
    from core.records.dead_letters import DeadLetters
    from core.router import Router
    from core.transport.connection import Subscription

log = logging.getLogger("routemq.delivery")

RETRY_SHARE = 4
"""The part of the window that messages which wait for their next run may hold, while it is full: a quarter."""
MAX_FLUSHING = 2.0
"""Seconds that a stop waits for what handlers have published in transactions."""


class Link(Reading, Protocol):
    """What the engine needs of a session with a broker."""

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Send a PUBACK for each of ``messages``, in order."""

    def lose(self) -> None:
        """End, because another process has taken the session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What an engine is made of. Times are in seconds.

    - ``router``: the routes.
    - ``link``: the session that messages come from.
    - ``outgoing``: publishes what handlers publish and return.
    - ``dead_letters``: the place for messages that cannot be handled.
    - ``last_resort``: the place for those that ``dead_letters`` refuses.
    - ``backlog``: where messages wait for routes that stand. By default nowhere, and no route stands.
    - ``breaker_after``: how many messages of a route have to fail in a row until it stands. By default 50. 0 is never.
    - ``database``: holds what exactly-once routes and periodic work need. By default there is none.
    - ``client_id``: the client identifier of the session.
    - ``broker``: the address of the session's broker.
    - ``owner``: the word by which this process holds the session in the database. By default it holds none.
    - ``subscriptions``: those of the session.
    - ``known``: the topic filters that the session had before.
    - ``retry``: the policy of routes that name none.
    - ``timeout``: the time for handlers whose routes name none. By default 30.
    - ``limits``: the limits of bodies.
    - ``receive_maximum``: how many messages may be in hand. By default 1,000.
    - ``dedup_keep``: how long application keys are kept. By default 604,800, which is 7 days.
    - ``jobs``: the periodic work.
    - ``clock``: tells the time to periodic work and to the pauses between runs.
    - ``identity``: knows whether the broker's packet identifiers can be trusted. By default they are.
    - ``observer``: is told of the outcome of each run. By default nobody is.
    """

    router: Router
    link: Link
    outgoing: Outgoing
    dead_letters: DeadLetters
    last_resort: DeadLetters
    backlog: Store = Store()  # noqa: RUF009 - it is frozen
    breaker_after: int = 50
    database: Database | None = None
    client_id: str
    broker: str
    owner: str | None = None
    subscriptions: Sequence[Subscription] = ()
    known: frozenset[str] = frozenset()
    retry: Retry = field(default_factory=Retry)
    timeout: float = 30
    limits: Limits = DEFAULT
    receive_maximum: int = 1000
    dedup_keep: float = 604_800
    jobs: Sequence[Job] = ()
    clock: Clock = field(default_factory=SystemClock)
    identity: Identity = field(default_factory=Identity)
    observer: Observer | None = None


class Engine:
    """Takes messages in, has them handled, and acknowledges them. It also runs the periodic work.

    Call ``load`` first, then ``start``, then connect the session. ``consumer`` is the listener of the session.

    Raise StartError where a route is exactly_once and there is no database.
    """

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self.ledger = Ledger()
        acknowledgements = Acknowledgements(options.link.acknowledge, options.identity)
        window = Window(self.ledger, acknowledgements, options.link, options.receive_maximum)
        database = options.database
        outage = Outage(log) if database is None else Outage(log, lambda: database.answers, database.ping)
        backlog = options.backlog.place
        burial = Burial(options.dead_letters, options.last_resort, backlog, options.client_id, options.limits)
        self.dispatch = Dispatch(
            Runner(options.outgoing, options.timeout, options.limits),
            burial,
            options.retry,
            options.clock,
            Circuits(outage, options.breaker_after, stores=backlog is not None),
            options.observer,
        )
        self.exactly_once = _exactly_once(options, window, burial)
        self._backlog = Backlog(options.backlog, options.router, self.dispatch, self.exactly_once, self.ledger)
        self.dispatch.pauses.share = options.receive_maximum // RETRY_SHARE
        self.dispatch.pauses.crowded = lambda: window.crowded
        self.consumer = Consumer(
            options.router,
            self.dispatch,
            Intake(
                self.ledger,
                acknowledgements,
                window,
                Copies(options.subscriptions, options.known),
            ),
            self.exactly_once,
        )
        claims = None if database is None else ClaimTable(database.begin)
        self.periodic = Periodic(options.jobs, options.clock, claims)

    async def load(self) -> None:
        """Read which messages earlier processes committed, and which wait on disk. Raise what the storage raises."""
        if self.exactly_once is not None:
            await self.exactly_once.packets.load()
        await self._backlog.load()

    def start(self) -> None:
        """Start sending what earlier processes left in the outbox, and start the periodic work."""
        if self.exactly_once is not None:
            self.exactly_once.outbox.start()
        self._backlog.start()
        self.periodic.start()

    async def flushed(self) -> None:
        """Wait until everything that handlers published in transactions is sent."""
        if self.exactly_once is not None:
            await self.exactly_once.outbox.flushed()

    async def finish(self, hurry: asyncio.Event, timeout: float) -> None:
        """Take in no more messages, and finish those in hand.

        Cut them off after ``timeout`` seconds, or once ``hurry`` is set. What is cut off stays unacknowledged, so that the
        broker sends it again.
        """
        await self.periodic.stop()
        await self._backlog.stop()
        stopping = asyncio.ensure_future(self.consumer.stop(timeout))
        hurried = asyncio.ensure_future(hurry.wait())
        await asyncio.wait([stopping, hurried], return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not stopping.done():
            await self.consumer.cut()
        await stopping

    async def stop(self, flushing: float = 0) -> None:
        """Stop the record of packets, and the outbox once it is empty, or after ``flushing`` seconds.

        What it still holds is sent after the next start.
        """
        await self._options.identity.stop()
        if self.exactly_once is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(flushing):
                await self.exactly_once.outbox.flushed()
        await self.exactly_once.outbox.stop()
        await self.exactly_once.packets.stop()


def _exactly_once(options: EngineOptions, window: Window, burial: Burial) -> ExactlyOnce | None:
    """Return what exactly-once routes need. None where there are no such routes."""
    route = next((route for route in options.router.routes if route.options.delivery == "exactly_once"), None)
    if route is None:
        return None
    database = options.database
    if database is None:
        raise StartError(
            f"route {route.pattern.text!r} at {route.defined_at}: delivery='exactly_once' needs a database, in which it "
            "records the messages. Set DATABASE_URL, or write delivery='at_least_once'"
        )
    fence = None if options.owner is None else Fence(options.owner, options.link.lose)
    return ExactlyOnce(
        database.writing,
        Packets(database.begin, options.client_id, options.broker, options.identity, window, fence),
        Outbox(database.begin, options.outgoing, burial.store, options.client_id),
        options.client_id,
        options.dedup_keep,
    )
