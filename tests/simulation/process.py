"""One process of the application: the real engine, session and records, started and stopped as the worker does it."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from bootstrap.storage import when_database_answers
from core import publisher as publishers
from core.database import current
from core.database.engine import Database
from core.delivery.backlog import Store
from core.delivery.engine import MAX_FLUSHING, Engine, EngineOptions
from core.errors import RouteMQError
from core.handling import delivery as deliveries
from core.publisher import Publisher
from core.records import tables
from core.records.dead_letter_table import DeadLetterTable
from core.records.session_hold import SessionRecord, SessionTable
from core.runtime import Runtime
from core.session.identity import PROBE, Identity, Verdict, probe
from core.session.session import Session
from core.transport.native.connection import NativeConnection
from core.transport.options import ConnectOptions
from tests.simulation.application import BREAKER_AFTER, TIMEOUT
from tests.simulation.world.driver import URL, Dialect
from tests.simulation.world.loop import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.records.dead_letters import Also, DeadLetter
    from core.router import Router
    from core.transport.connection import Connect
    from tests.simulation.world.database import Server
    from tests.simulation.world.loop import World
    from tests.simulation.world.network import Network

CLIENT_ID = "worker"
SHUTDOWN = 10.0
"""Seconds that a stop gives to messages in hand."""
_COMPILED: list[Any] = []


class Disk:
    """The file of dead letters, which outlives processes."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []

    async def add(self, dead_letter: DeadLetter, also: Also | None = None) -> None:
        """Append ``dead_letter`` once the disk has it."""
        loop: Any = asyncio.get_running_loop()
        await asyncio.sleep(0.002)
        if not loop.dead:
            self.letters.append(dead_letter)


class Setting:
    """What all processes of a run share.

    - ``router``: the routes.
    - ``receive_maximum``: how many messages may be in hand.
    - ``dead_letter_max``: how many dead letters are kept.
    """

    def __init__(self, world: World, network: Network, server: Server, router: Router) -> None:
        self.world = world
        self.network = network
        self.server = server
        self.router = router
        self.receive_maximum = 1000
        self.is_exact = any(route.options.delivery == "exactly_once" for route in router.routes)
        self.dead_letter_max = 100_000
        self.disk = Disk()


class Worker:
    """One process. ``ended`` is called when it has ended by itself, with the error that ended it, or None."""

    def __init__(self, setting: Setting, number: int, ended: Callable[[Worker, BaseException | None], None]) -> None:
        self.setting = setting
        self.number = number
        self.name = f"worker {number}"
        self.loop = VirtualLoop(setting.world, setting.network)
        self.engine: Engine | None = None
        self.session: Session | None = None
        self.is_over = False
        self.stops = False
        self.kept_connections = 0
        self._database: Database | None = None
        self._records: list[Any] = []
        self._dropping: list[asyncio.Task[None]] = []
        self._publisher: Publisher | None = None
        self._ended = ended
        self._stop = asyncio.Event()
        # Each process has a word of its own, and counts from 1.
        deliveries._process = setting.world.random.randbytes(6).hex()
        deliveries._numbers = count(1)
        runtime = Runtime()
        with runtime.used():
            self._main = self.loop.create_task(self._run(), name=self.name)
        self._main.add_done_callback(self._over)

    # -- the worker's life, as bootstrap/app.py has it -----------------------------------------------------------------

    async def _run(self) -> None:
        working = await self._start()
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            stopped.cancel()
            await self._end()

    async def _start(self) -> asyncio.Task[None]:
        setting = self.setting
        database = self._database = Database(URL)
        _share_compiled(database)
        event.listen(database.engine.sync_engine, "connect", lambda connection, record: self._records.append(record))
        current.configure(database)
        options = ConnectOptions("mqtt", "broker", 1883, client_id=CLIENT_ID, receive_maximum=setting.receive_maximum)
        subscriptions = setting.router.subscriptions()
        record = SessionRecord(SessionTable(database.begin), CLIENT_ID, options.address)
        stale = await when_database_answers(lambda: record.take([one.topic_filter for one in subscriptions]))
        self._publisher = Publisher(_connector(options, f"{CLIENT_ID}-p", clean=True), options.address)
        publishers.use_publisher(self._publisher)
        session = Session(
            _connector(options, CLIENT_ID, clean=False), options.address, subscriptions, stale=stale, hold=record
        )
        self.session = session
        identity = Identity(
            options.address, CLIENT_ID, lambda: _asked(options), lambda verdict: record.identified(verdict.name)
        )
        identity.remember(record.before.identity, record.before.identity_at)
        engine = Engine(
            EngineOptions(
                router=setting.router,
                link=session,
                outgoing=self._publisher,
                dead_letters=DeadLetterTable(database.begin, setting.dead_letter_max),
                last_resort=setting.disk,
                database=database,
                client_id=CLIENT_ID,
                broker=options.address,
                owner=record.owner,
                subscriptions=subscriptions,
                known=frozenset(record.before.filters),
                backlog=Store(DeadLetterTable(database.begin, 100_000, table=tables.backlog, client_id=CLIENT_ID)),
                breaker_after=BREAKER_AFTER,
                identity=identity if setting.is_exact else Identity(),
                timeout=TIMEOUT,
                receive_maximum=setting.receive_maximum,
            )
        )
        await when_database_answers(engine.load)
        self.engine = engine
        engine.start()
        return session.start(engine.consumer)

    async def _end(self) -> None:
        if self._dropping:
            await asyncio.wait(self._dropping)
        if self.engine is not None:
            await self.engine.finish(asyncio.Event(), SHUTDOWN)
        if self.session is not None:
            await self.session.stop()
        if self.engine is not None:
            await self.engine.stop(MAX_FLUSHING)
        if self._publisher is not None:
            await self._publisher.stop()
        if self._database is not None:
            pool: Any = self._database.engine.sync_engine.pool
            self.kept_connections = pool.checkedout()
        await current.close()

    def _over(self, task: asyncio.Task[None]) -> None:
        if self.loop.dead:
            return
        self.is_over = True
        # The end of a process closes whatever it still has open.
        self.setting.server.drop(self.loop)
        error = None if task.cancelled() else task.exception()
        self._ended(self, error)

    def drop_letters(self, dropped: dict[str, tuple[str, Any, bytes]]) -> None:
        """Delete all dead letters, and add them to ``dropped``. Do nothing where the database does not answer."""

        async def drop() -> None:
            assert self._database is not None
            letters = DeadLetterTable(self._database.begin, 1)
            with suppress(Exception):
                found = await letters.read()
                for one in found:
                    properties = None if one.letter.properties is None else json.dumps(one.letter.properties)
                    dropped[str(one.letter.message_id)] = one.letter.topic, properties, one.letter.body
                await letters.remove([one.id for one in found])

        self._dropping.append(self.loop.create_task(drop()))

    # -- what is done to it --------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop it in the normal way."""
        self.stops = True
        if self.session is None or self.engine is None:
            self._main.cancel()
        # Set as a signal handler would: within the loop.
        self.loop.call_soon(self._stop.set)

    def kill(self) -> None:
        """Let it die at once. Nothing of it writes or sends any more."""
        self.is_over = True
        self.loop.dead = True
        self.setting.server.drop(self.loop)
        for link in [link for link in self.setting.network.links if link.loop is self.loop]:
            link.close()

    def bury(self) -> None:
        """Free what is left of it."""
        with suppress(RouteMQError, asyncio.CancelledError):
            self.setting.server.drop(self.loop)
            self.loop.bury()
        # SQLAlchemy would complain of connections that nobody gave back, at whatever time they are freed.
        for record in self._records:
            record.dbapi_connection = None
        self._dropping.clear()


def _connector(options: ConnectOptions, client_id: str, *, clean: bool) -> Connect:
    own = ConnectOptions(
        options.scheme,
        options.host,
        options.port,
        client_id=client_id,
        clean_start=clean,
        receive_maximum=options.receive_maximum,
        transport="native",
    )
    return lambda listener, number: NativeConnection(own, listener, number)


async def _asked(options: ConnectOptions) -> Verdict:
    name = CLIENT_ID + PROBE
    return await probe(_connector(options, name, clean=True), _connector(options, name, clean=False))


def _share_compiled(database: Database) -> None:
    """Let all databases of this interpreter share the statements that are compiled: a process does that once in its life."""
    engine: Any = database.engine.sync_engine
    if not _COMPILED:
        assert isinstance(engine.dialect, Dialect)
        _COMPILED.append(engine._compiled_cache)
    engine._compiled_cache = _COMPILED[0]
