"""The application: put together, started and stopped in one place."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from bootstrap import storage
from bootstrap.discovery import controllers, discover
from bootstrap.status import StatusLine, start_block
from core import __version__, rate_limit
from core.codecs import Limits
from core.database import ambient
from core.delivery.acknowledge import Acknowledgements
from core.delivery.consumer import Consumer
from core.delivery.copies import Copies
from core.delivery.ledger import Ledger
from core.delivery.transactions import ExactlyOnce
from core.errors import SessionTakenOverError, StartError
from core.handling.dispatch import Dispatch
from core.model import Model
from core.periodic import Periodic, jobs_of
from core.publisher import Publisher, set_current
from core.records.claims import ClaimTable
from core.records.outbox import Outbox
from core.records.packets import Processed
from core.records.session_hold import SessionRecord
from core.retry import Retry
from core.runtime.clock import SystemClock
from core.session.presence import Presence
from core.session.session import Session
from core.transport.brokers.embedded import EmbeddedBroker
from core.transport.connect import connector

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from config.settings import Settings
    from core.router import Router
    from core.transport.options import ConnectOptions

log = logging.getLogger("routemq")

MOST_FLUSHING = 2.0
"""Seconds that a stop waits for what handlers have published in transactions."""
SOON = 5.0
"""Seconds after which the terminal is told why the worker is not ready yet."""


class Application:
    """One worker: a session with the broker, the consumer behind it, and a database.

    ``start`` returns when all of it stands, but for the connection to the broker, which is tried for ever. ``stop`` takes
    nothing in any more, finishes what is in hand, and lets go of everything in the opposite order.
    """

    def __init__(self, settings: Settings, router: Router, say: Callable[[str], None] = print) -> None:
        self.settings = settings
        self.router = router
        self.ledger = Ledger()
        self._say = say
        self._broker: EmbeddedBroker | None = None
        self._session: Session | None = None
        self._publisher: Publisher | None = None
        self._consumer: Consumer | None = None
        self._status: StatusLine | None = None
        self._ready: asyncio.Task[None] | None = None
        self._outbox: Outbox | None = None
        self._periodic: Periodic | None = None

    async def start(self) -> asyncio.Task[None]:
        """Start; give the session's task, which ends by itself only with a SessionTakenOverError. Raises StartError."""
        settings = self.settings
        self.router.freeze()
        jobs = jobs_of(controllers())
        storage.configure(settings)
        rate_limit.configure(settings.rate_limit_url)
        await storage.once_it_answers(lambda: storage.prepare(upgrades=settings.auto_migrate))
        options = settings.connect_options()
        if options.scheme == "embedded":
            self._broker = EmbeddedBroker(options)
            options = await self._broker.start()

        subscriptions = self.router.subscriptions()
        record = SessionRecord(storage.sessions(), options.client_id, options.address)
        filters = [subscription.topic_filter for subscription in subscriptions]
        stale = await storage.once_it_answers(lambda: record.take(filters))
        publishing = replace(options, client_id=f"{options.client_id}-p", clean_start=True)
        publisher = self._publisher = Publisher(connector(publishing), options.address, settings.response_topic)
        set_current(publisher)
        presence = None
        if settings.status_topic:
            presence = Presence(settings.status_topic, options.client_id, __version__)
            options = replace(options, will=presence.will())
        session = self._session = Session(
            connector(options), options.address, subscriptions, stale=stale, hold=record, presence=presence
        )
        acknowledgements = Acknowledgements(session.acknowledge)
        dispatch = Dispatch(
            self.ledger,
            acknowledgements,
            storage.dead_letters(settings),
            storage.dead_letter_file(settings),
            publisher.publish,
            options.client_id,
            Retry(settings.retry_attempts, settings.retry_first, settings.retry_factor, settings.retry_most),
            settings.handler_timeout,
            Limits(settings.max_payload_bytes, settings.max_payload_depth),
        )
        exactly_once = await self._exactly_once(options, publisher)
        self._consumer = Consumer(
            self.router,
            self.ledger,
            acknowledgements,
            dispatch,
            session,
            settings.mqtt_receive_maximum,
            Copies(subscriptions, record.known),
            exactly_once,
        )
        self._say(start_block(settings, options, self._broker, self.router))
        self._status = StatusLine(self.ledger, log.info, dispatch.failures.flush)
        self._status.start()
        self._periodic = Periodic(jobs, SystemClock(), ClaimTable(ambient.database().begin) if Model._is_enabled else None)
        self._periodic.start()
        working = session.start(self._consumer)
        self._ready = asyncio.create_task(self._tell_ready(session), name="tell ready")
        return working

    async def _exactly_once(self, options: ConnectOptions, publisher: Publisher) -> ExactlyOnce | None:
        """Give what exactly-once routes need; None where there are none. Raises StartError where the mode cannot hold."""
        route = next((route for route in self.router.routes if route.options.delivery == "exactly_once"), None)
        if route is None:
            return None
        if not Model._is_enabled:
            raise StartError(
                f"route {route.pattern.text!r} at {route.defined_at}: delivery='exactly_once' needs a database to record "
                "messages in; set DATABASE_URL, or write delivery='at_least_once'"
            )
        if options.version == "5" and options.session_expiry == 0:
            raise StartError(
                f"route {route.pattern.text!r} at {route.defined_at}: delivery='exactly_once' needs a session that outlives "
                "its connection; MQTT_SESSION_EXPIRY=0 ends it at once, give it the seconds that a worker may be away"
            )
        database = ambient.database()
        processed = Processed(database.begin, options.client_id, options.address)
        await storage.once_it_answers(processed.load)
        outbox = self._outbox = Outbox(database.begin, publisher.publish, options.client_id)
        outbox.start()
        return ExactlyOnce(database.writing, processed, outbox, options.client_id, self.settings.dedup_keep)

    async def _tell_ready(self, session: Session) -> None:
        try:
            async with asyncio.timeout(SOON):
                await session.connected()
        except TimeoutError:
            if session.stands:
                log.info("connected: at work on what the session has collected, behind which subscriptions are confirmed")
            await session.connected()
        version = session.connack.version if session.connack else self.settings.mqtt_version
        filters = len(self.router.subscriptions())
        overlapping = [s.topic_filter for s in self.router.subscriptions() if s.identifier is not None]
        if overlapping and not (session.connack and session.connack.subscription_identifiers):
            log.warning(
                "topic filters overlap, and without MQTT 5 a broker that sends a copy for each is not found out: %s",
                ", ".join(overlapping),
            )
        log.info("ready: connected by MQTT %s, %d topic filter%s subscribed", version, filters, "s" * (filters != 1))

    async def stop(self, hurry: asyncio.Event | None = None) -> None:
        """Stop in order; ``hurry``, once set, cuts off what is still in hand."""
        if self._ready is not None:
            self._ready.cancel()
        if self._periodic is not None:
            await self._periodic.stop()
        if self._consumer is not None:
            stopping = asyncio.ensure_future(self._consumer.stop(self.settings.shutdown_timeout))
            if hurry is not None:
                hurried = asyncio.ensure_future(hurry.wait())
                await asyncio.wait([stopping, hurried], return_when=asyncio.FIRST_COMPLETED)
                hurried.cancel()
                if not stopping.done():
                    await self._consumer.cut()
            await stopping
        if self._session is not None:
            await self._session.stop()
        if self._outbox is not None:
            # What cannot be sent now stays in its table until the next start.
            with suppress(TimeoutError):
                async with asyncio.timeout(MOST_FLUSHING if hurry is None or not hurry.is_set() else 0):
                    await self._outbox.flushed()
            await self._outbox.stop()
        if self._publisher is not None:
            set_current(None)
            await self._publisher.stop()
        if self._status is not None:
            await self._status.stop()
        if self._broker is not None:
            await self._broker.stop()
        await rate_limit.close()
        await Model.close()

    async def run(self) -> int:
        """Start, work until SIGTERM or Ctrl-C, stop; give the exit code. A second signal cuts the stop short."""
        stop, hurry = asyncio.Event(), asyncio.Event()

        def signalled() -> None:
            if stop.is_set():
                hurry.set()
            else:
                log.info("stopping: finishing what is in hand")
                stop.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, signalled)
        stopped = asyncio.ensure_future(stop.wait())
        starting = asyncio.ensure_future(self.start())
        code = 0
        try:
            await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.wait([starting])
                return 0
            working = starting.result()
            _collect_garbage_rarely()
            await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                try:
                    working.result()
                except SessionTakenOverError as error:
                    log.error("%s", error)  # noqa: TRY400 - the error says it all
                    code = 1
        finally:
            stopped.cancel()
            await self.stop(hurry)
            if self.ledger.received:
                log.info("stopped: %s", self.ledger)
        return code


def _collect_garbage_rarely() -> None:
    """Leave what was made at the start out of garbage collection, and collect less often than Python does by itself.

    Hundreds of messages in hand are thousands of living objects, which each collection walks through to find nothing: a
    seventh of the CPU per message by default.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 50)


def run(settings: Settings) -> int:
    """Run the worker with ``settings`` until it is told to stop; give its exit code. Raises RouteMQError at start."""
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"
    )
    for library in ("iotcore", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)
    return run_loop(Application(settings, discover()).run())


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run ``main`` on uvloop where that is installed, else on asyncio's own loop."""
    factory = None
    if sys.platform != "win32":
        try:
            import uvloop  # noqa: PLC0415 - not on all platforms

            factory = uvloop.new_event_loop
        except ImportError:
            log.debug("uvloop is not installed, running on asyncio's own event loop")
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
