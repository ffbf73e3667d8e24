"""The application: put together, started and stopped in one place."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from bootstrap import storage
from bootstrap.connections import identity_of, publisher_with
from bootstrap.discovery import controllers, discover
from bootstrap.status import StatusLine, start_block
from core import __version__, rate_limit
from core.database.current import configured_or_none
from core.delivery.engine import MAX_FLUSHING, Engine, EngineOptions
from core.errors import SessionTakenOverError, StartError
from core.model import Model
from core.periodic import jobs_of
from core.publisher import Publisher, use_publisher
from core.records.packets import MAX_UNDER_WAY
from core.records.session_hold import SessionRecord
from core.runtime import current
from core.session.identity import Identity
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

MAX_SILENCE = 5.0
"""Seconds after which the log says why a worker with a connection is not ready yet."""


class Application:
    """One worker: a session with the broker, the engine behind it, and a database.

    ``start`` does not wait for the connection to the broker, which is tried until it succeeds. ``stop`` takes no more
    messages, finishes those in hand, and closes everything in the opposite order. ``say`` prints the start block.

    It lives in the runtime in which it is made (see ``core.runtime.Runtime``). A second one in the same process needs a
    runtime of its own.
    """

    def __init__(self, settings: Settings, router: Router, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.router = router
        self.engine: Engine | None = None
        self.runtime = current()
        self._say = say
        self._broker: EmbeddedBroker | None = None
        self._session: Session | None = None
        self._publisher: Publisher | None = None
        self._status: StatusLine | None = None
        self._ready: asyncio.Task[None] | None = None

    async def start(self) -> asyncio.Task[None]:
        """Start the worker and return the task of its session.

        The task ends by itself only with a SessionTakenOverError. Raise RouteMQError if the application cannot start as it
        is set up.
        """
        with self.runtime.used():
            return await self._start()

    async def _start(self) -> asyncio.Task[None]:
        settings = self.settings
        self.router.freeze()
        jobs = jobs_of(controllers())
        storage.configure(settings)
        rate_limit.configure(settings.rate_limit_url)
        await storage.when_database_answers(lambda: storage.prepare(upgrades=settings.auto_migrate))
        options = settings.connect_options()
        if options.scheme == "embedded":
            self._broker = EmbeddedBroker(options)
            options = await self._broker.start()

        subscriptions = self.router.subscriptions()
        record = SessionRecord(storage.sessions(), options.client_id, options.address)
        filters = [subscription.topic_filter for subscription in subscriptions]
        stale = await storage.when_database_answers(lambda: record.take(filters))
        publisher = publisher_with(options, f"{options.client_id}-p", settings.response_topic)
        self._publisher = publisher
        use_publisher(publisher)
        presence = None
        if settings.status_topic:
            presence = Presence(settings.status_topic, options.client_id, __version__)
            options = replace(options, will=presence.will())
        session = self._session = Session(
            connector(options), options.address, subscriptions, stale=stale, hold=record, presence=presence
        )
        exactly_once = any(route.options.delivery == "exactly_once" for route in self.router.routes)
        engine = Engine(
            EngineOptions(
                router=self.router,
                link=session,
                outgoing=publisher,
                dead_letters=storage.dead_letters(settings),
                last_resort=storage.dead_letter_file(settings),
                backlog=storage.backlog(settings, options.client_id),
                breaker_after=settings.breaker_after,
                database=configured_or_none(),
                client_id=options.client_id,
                broker=options.address,
                owner=record.owner,
                subscriptions=subscriptions,
                known=frozenset(record.before.filters),
                retry=settings.retry(),
                timeout=settings.handler_timeout,
                limits=settings.limits(),
                receive_maximum=settings.mqtt_receive_maximum,
                dedup_keep=settings.dedup_keep,
                jobs=jobs,
                identity=identity_of(options, record) if exactly_once else Identity(),
            )
        )
        if engine.exactly_once is not None:
            self._check_session(options)
        await storage.when_database_answers(engine.load)
        self.engine = engine
        engine.start()
        self._say(start_block(settings, options, self._broker, self.router))
        self._status = StatusLine(engine.ledger, log.info, engine.dispatch.failures.flush)
        self._status.start()
        working = session.start(engine.consumer)
        self._ready = asyncio.create_task(self._log_when_ready(session), name="log when ready")
        return working

    def _check_session(self, options: ConnectOptions) -> None:
        """Raise StartError if the record of packets would be of no use.

        The session may end with its connection, or too many packets may be under way at once.
        """
        route = next(route for route in self.router.routes if route.options.delivery == "exactly_once")
        if options.receive_maximum > MAX_UNDER_WAY:
            raise StartError(
                f"route {route.pattern.text!r} at {route.defined_at}: delivery='exactly_once' knows messages by their "
                f"packet identifiers, and MQTT_RECEIVE_MAXIMUM={options.receive_maximum} lets too many be under way at once "
                f"for that; set MQTT_RECEIVE_MAXIMUM to {MAX_UNDER_WAY} at the most"
            )
        if options.version == "5" and options.session_expiry == 0:
            raise StartError(
                f"route {route.pattern.text!r} at {route.defined_at}: delivery='exactly_once' needs a session that outlives "
                "its connection, and MQTT_SESSION_EXPIRY=0 ends it with the connection; set MQTT_SESSION_EXPIRY to the "
                "number of seconds that a worker may be away"
            )

    async def _log_when_ready(self, session: Session) -> None:
        try:
            async with asyncio.timeout(MAX_SILENCE):
                await session.connected()
        except TimeoutError:
            if session.stands:
                log.info(
                    "connected: working through the messages that the broker has kept, then subscriptions are confirmed"
                )
            await session.connected()
        version = session.connack.version if session.connack else self.settings.mqtt_version
        filters = len(self.router.subscriptions())
        overlapping = [s.topic_filter for s in self.router.subscriptions() if s.identifier is not None]
        if overlapping and not (session.connack and session.connack.subscription_identifiers):
            log.warning(
                "topic filters overlap: %s; this broker has no subscription identifiers (MQTT 5), so a message that it "
                "sends once for each of them is handled once for each",
                ", ".join(overlapping),
            )
        log.info("ready: connected with MQTT %s, subscribed to %d topic filter%s", version, filters, "s" * (filters != 1))

    async def stop(self, hurry: asyncio.Event) -> None:
        """Stop everything in order. Messages still in hand are cut off once ``hurry`` is set."""
        with self.runtime.used():
            await self._stop(hurry)

    async def _stop(self, hurry: asyncio.Event) -> None:
        if self._ready is not None:
            self._ready.cancel()
        if self.engine is not None:
            await self.engine.finish(hurry, self.settings.shutdown_timeout)
        if self._session is not None:
            await self._session.stop()
        if self.engine is not None:
            await self.engine.stop(0 if hurry.is_set() else MAX_FLUSHING)
        if self._publisher is not None:
            use_publisher(None)
            await self._publisher.stop()
        if self._status is not None:
            await self._status.stop()
        if self._broker is not None:
            await self._broker.stop()
        await rate_limit.close()
        await Model.close()

    async def run(self) -> int:
        """Start, work until SIGTERM or Ctrl-C, and stop. Return the exit code.

        A second signal cuts the stop short. Raise RouteMQError if the application cannot start as it is set up.
        """
        stop, hurry = asyncio.Event(), asyncio.Event()

        def signalled() -> None:
            if stop.is_set():
                hurry.set()
            else:
                log.info("stopping: finishing the messages in hand; a second signal cuts this short")
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
            if self.engine is not None and self.engine.ledger.received:
                log.info("stopped: %s", self.engine.ledger)
        return code


def _collect_garbage_rarely() -> None:
    """Leave what was made at the start out of garbage collection, and collect less often than Python does by default.

    Hundreds of messages in hand are thousands of living objects. Each collection walks through all of them and finds
    nothing. By default that costs a seventh of the CPU per message.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 50)


def run(settings: Settings) -> int:
    """Run the worker with ``settings`` until it is told to stop, and return its exit code.

    Raise RouteMQError if the application cannot start as it is set up.
    """
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"
    )
    for library in ("iotcore", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)
    return run_loop(Application(settings, discover(), print).run())


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run ``main`` on uvloop if it is installed, or else on asyncio's own event loop. Return what ``main`` returns."""
    factory = None
    if sys.platform != "win32":
        try:
            import uvloop  # noqa: PLC0415 - not on all platforms

            factory = uvloop.new_event_loop
        except ImportError:
            log.debug("uvloop is not installed, so the worker runs on asyncio's own event loop")
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
