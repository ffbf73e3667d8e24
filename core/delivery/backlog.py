"""The backlog: messages on disk that wait for routes that stand. They are tried, and then handled before newer ones."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from core.database import transaction
from core.database.fault import Fault, fault_of, is_unreachable
from core.database.unit_of_work import UnitOfWork
from core.errors import MessageError, RouteStandsError, one_line
from core.handling.end import End
from core.handling.failures.outcome import WAITED_OUT, Bury, Done, RetryAfter, again_after, decide
from core.handling.replay import delivery_of
from core.records.outbox import Collected
from core.retry import Pauses

if TYPE_CHECKING:
    from collections.abc import Coroutine, Hashable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from core.delivery.ledger import Ledger
    from core.delivery.transactions import ExactlyOnce
    from core.handling.delivery import Delivery
    from core.handling.dispatch import Dispatch
    from core.handling.failures.circuit import Circuit
    from core.records.dead_letter_file import DeadLetterFile
    from core.records.dead_letter_table import DeadLetterTable
    from core.records.dead_letters import Stored
    from core.router import Router

log = logging.getLogger("routemq.delivery")

FIRST_PAUSE = 1.0
"""Seconds before the first try of a route that stands."""
MAX_PAUSE = 30.0
"""Seconds between two tries at the most."""
LOOK_EVERY = 60.0
"""Seconds between two looks at what another process may have left there."""
MAX_STOPPING = 5.0
"""Seconds that a stop waits for the messages that run."""
SHORT = 0.02
"""Seconds until the disk is looked at again, where something is on its way to it, or is due soon."""
REMIND_EVERY = 60.0
"""Seconds between two log lines while a route stands."""
PAGE = 500
"""Messages that are read from the disk at once."""


class _RolledBackError(Exception):
    """Leaves the transaction, so that it rolls back."""


class _HandledBeforeError(Exception):
    """Leaves the transaction, as the message is on the disk no more: an answer to an earlier commit was lost."""


@dataclass(frozen=True, slots=True)
class Store:
    """Where the messages wait. One of the two is there.

    - ``table``: the table, where there is a database.
    - ``file``: the file, where there is none.
    """

    table: DeadLetterTable | None = None
    file: DeadLetterFile | None = None

    @property
    def place(self) -> DeadLetterTable | DeadLetterFile | None:
        """The one that is there. None where messages cannot wait on disk."""
        return self.table or self.file


class _Route:
    """The work on the messages of one route.

    - ``works``: whether the route is held to work: the last message that ran had its end. Otherwise one at a time is tried.
    - ``failing``: messages that are to run again, by their numbers.
    - ``due``: when they are, by their numbers, where that is not at once.
    - ``turn``: which key is tried next.
    - ``handled``: how many messages have had their end since the route stands.
    """

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.pauses = Pauses(FIRST_PAUSE, MAX_PAUSE, jitter=0.25)
        self.works = False
        self.failing: dict[int, Delivery] = {}
        self.due: dict[int, float] = {}
        self.turn = 0
        self.handled = 0
        self.reminded = monotonic()


class _Pass:
    """One walk through the messages of ``route``, the oldest first. ``ran`` is how many of them have run in it."""

    def __init__(self, route: _Route) -> None:
        self._route = route
        self._held: set[Hashable] = set()
        self._seen = 0
        self.ran = 0

    def hold(self, key: Hashable) -> None:
        """Leave out later messages with ``key``."""
        if key is not None:
            self._held.add(key)

    def takes(self, number: int, key: Hashable) -> bool:
        """Return whether the message with this number and ``key`` is to run now."""
        if key in self._held:
            return False
        if self._route.due.get(number, 0) > monotonic():
            self.hold(key)
            return False
        if not self._route.works:
            # Each time one of another key, so that one bad message does not keep the route standing.
            self._seen += 1
            if self.ran or self._seen <= self._route.turn:
                self.hold(key)
                return False
            self._route.turn += 1
        self.ran += 1
        return True


class Backlog:
    """Has the messages of routes that stand tried, and handled in order once one of them is done.

    While a route stands, one message is tried at a time, with growing pauses (1 s to 30 s), each time of another ordering
    key. As soon as one is done, all that wait are handled, the oldest first. Newer ones wait behind them. When none is left,
    the route takes messages as usual.

    A message of an exactly-once route is handled in the transaction that takes it off the disk. Others are taken off when
    they are done.

    - ``store``: where the messages wait.
    - ``router``: finds their routes.
    - ``dispatch``: knows which routes stand, and runs handlers.
    - ``exactly_once``: what exactly-once routes need. None where there are no such routes.
    - ``ledger``: counts each message that is handled, as received and by its end.
    """

    def __init__(
        self, store: Store, router: Router, dispatch: Dispatch, exactly_once: ExactlyOnce | None, ledger: Ledger
    ) -> None:
        self._store = store
        self._router = router
        self._dispatch = dispatch
        self._exactly_once = exactly_once
        self._ledger = ledger
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = False
        self._stopping = asyncio.Event()
        dispatch.circuits.when_opened(self._begin)

    async def load(self) -> None:
        """Have each route stand that left messages on the disk. Raise what the storage raises."""
        if self._store.place is not None:
            place = self._store.place
            for name, count in (await place.routes()).items():
                kind = (await place.latest(most=1, route=name))[0].letter.error
                why = f"{count:,} of its messages wait there that another process left"
                self._dispatch.circuits.stand(name, why, "" if kind == RouteStandsError.__qualname__ else kind)

    def start(self) -> None:
        """Start to try the routes that stand."""
        self._started = True
        for circuit in self._dispatch.circuits.standing.values():
            self._begin(circuit)
        if self._store.place is not None:
            self._keep(self._look_again())

    async def stop(self) -> None:
        """Finish the messages that run, and stop trying. What waits stays on the disk."""
        self._started = False
        self._stopping.set()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=MAX_STOPPING)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _begin(self, circuit: Circuit) -> None:
        if self._started:
            self._keep(self._work(_Route(circuit)))

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="backlog")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_again(self) -> None:
        """Find what another process left on the disk after this one had started: one that the session was taken from."""
        while not await self._stops_within(LOOK_EVERY):
            try:
                await self.load()
            except Exception as error:  # noqa: BLE001 - the storage is away, which the other messages tell
                log.debug("the backlog cannot be looked at: %s", one_line(error))

    async def _stops_within(self, seconds: float) -> bool:
        """Wait for ``seconds``, or until this is to stop. Return whether it is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()

    async def _work(self, route: _Route) -> None:
        """Try ``route``, and handle what waits, until nothing does."""
        circuit = route.circuit
        while not self._stopping.is_set():
            if not route.works:
                self._remind(route)
                if await self._stops_within(route.pauses.next()):
                    return
            stored = circuit.stored
            try:
                left = await self._pass(route)
            except Exception as error:  # noqa: BLE001 - the storage is away, which the other messages tell
                log.debug("the backlog of route %s cannot be worked on: %s", circuit.name, one_line(error))
                route.works = False
                continue
            if not left and self._dispatch.circuits.close(circuit, stored):
                log.warning("route %s goes on: the %d messages that waited are handled", circuit.name, route.handled)
                return
            if not left:
                # Some are on their way to the disk.
                await asyncio.sleep(SHORT)

    def _remind(self, route: _Route) -> None:
        now = monotonic()
        if now - route.reminded >= REMIND_EVERY and route.circuit.since is not None:
            route.reminded = now
            log.error("still, after %.0f s: %s", now - route.circuit.since, route.circuit.why)

    async def _pass(self, route: _Route) -> bool:
        """Run what waits once: all of it if ``route`` works, or else one message. Return whether anything waits.

        Raise what the storage raises.
        """
        place = self._store.place
        assert place is not None  # noqa: S101 - a route stands only where its messages can wait
        this, after = _Pass(route), 0
        done: list[int] = []
        while found := await place.read(after=after, most=PAGE, route=route.circuit.name):
            after = found[-1].id
            for stored in found:
                if self._stopping.is_set():
                    return True
                delivery = route.failing.get(stored.id) or self._delivery(stored)
                key = self._key(delivery)
                if stored.letter.message_id in route.circuit.storing:
                    # The answer to its commit was lost: it is going to be stored once more, unless it is there.
                    this.hold(key)
                elif this.takes(stored.id, key):
                    if await self._run(route, delivery):
                        done.append(stored.id)
                    else:
                        this.hold(key)
            if done and self._store.table is None:
                # Only now: the file is written anew each time.
                await place.remove(done)
                done.clear()
            if this.ran and not route.works:
                return True
        if not this.ran:
            route.turn = 0
            if route.works:
                due = min(route.due.values(), default=0.0) - monotonic()
                await asyncio.sleep(max(due, SHORT))
        return after > 0

    def _delivery(self, stored: Stored) -> Delivery:
        delivery = delivery_of(self._router, stored.letter)
        delivery.attempt = stored.letter.attempts
        delivery.stored = stored.id
        return delivery

    @staticmethod
    def _key(delivery: Delivery) -> Hashable:
        route = delivery.route
        if route is None:
            return delivery.message.topic
        with suppress(Exception):
            return route.key(delivery.message, delivery.params)
        return delivery.message.topic

    # -- one message ---------------------------------------------------------------------------------------------------

    async def _run(self, route: _Route, delivery: Delivery) -> bool:
        """Run ``delivery`` once. Return whether it has its end, and is to be off the disk."""
        dispatch, number = self._dispatch, delivery.stored
        assert number is not None  # noqa: S101 - it comes from the disk
        delivery.attempt += 1
        while True:
            error = await self._handle(delivery)
            if error is not None and not self._started:
                # It may only follow from the cancellation of this task, which is no failure of the message.
                raise asyncio.CancelledError from error
            fault = Fault.MESSAGE if error is None else fault_of(error)
            seconds = again_after(delivery.again) if fault is Fault.AGAIN else None
            if seconds is None:
                break
            delivery.again += 1
            await asyncio.sleep(seconds)
        outcome = decide(error, fault, delivery.attempt, delivery.again, dispatch.policy(delivery))
        if error is None or isinstance(outcome, Done):
            dispatch.done(delivery)
            if not route.works:
                log.warning("route %s works again; its messages that waited are handled first", route.circuit.name)
        elif not await self._failed(route, delivery, error, fault, outcome):
            route.failing[number] = delivery
            return False
        if not route.works:
            route.works = True
            route.pauses.reset()
        route.failing.pop(number, None)
        route.due.pop(number, None)
        route.handled += 1
        self._ledger.received += 1
        self._ledger.count(delivery.end or End.DONE)
        if self._store.table is not None and (delivery.end is End.DEAD_LETTERED or not self._in_transaction(delivery)):
            await self._store.table.remove([number])
        return True

    async def _failed(self, route: _Route, delivery: Delivery, error: BaseException, fault: Fault, outcome: object) -> bool:
        """Decide on ``delivery``, which failed with ``error``. Return whether it is a dead letter now."""
        dispatch, number = self._dispatch, delivery.stored or 0
        if fault in WAITED_OUT:
            delivery.attempt -= 1
            waits = is_unreachable(error) or dispatch.circuits.refused(delivery, error) is not None
            if waits and not await dispatch.outage.is_own(delivery, error):
                route.works = False
                return False
        elif isinstance(error, MessageError):
            pass
        elif not route.works and dispatch.circuits.is_why(route.circuit, error):
            # It stands because of such failures, which are no fault of this message.
            delivery.attempt -= 1
            return False
        elif isinstance(outcome, RetryAfter):
            route.due[number] = monotonic() + outcome.seconds
            if not outcome.counts:
                delivery.attempt -= 1
            return False
        elif isinstance(outcome, Bury) and dispatch.circuits.failed(delivery, error):
            route.works = False
            return False
        await dispatch.bury(delivery, error, self)
        if delivery.end is None:
            # There are too many dead letters, or the database is away.
            route.works = False
            return False
        if not self._in_transaction(delivery):
            await dispatch.runner.reply_error(delivery, error)
        return True

    def _in_transaction(self, delivery: Delivery) -> bool:
        route = delivery.route
        return self._exactly_once is not None and route is not None and route.options.delivery == "exactly_once"

    async def _handle(self, delivery: Delivery) -> BaseException | None:
        """Run the handler of ``delivery``. Return what went wrong."""
        mode, table = self._exactly_once, self._store.table
        if mode is None or table is None or not self._in_transaction(delivery):
            return await self._dispatch.runner.run(delivery)
        collected = Collected(mode.client_id)
        error: BaseException | None = None
        try:
            async with mode.begin() as session:
                # First of all, since it waits for a commit that may still be under way.
                if await table.remove_within(await session.connection(), [delivery.stored or 0]) == 0:
                    raise _HandledBeforeError  # noqa: TRY301 - out of the transaction
                unit = UnitOfWork(session, savepoints=True)
                async with unit.ending(), transaction.Part(unit):
                    error = await self._dispatch.runner.run(delivery, collected)
                if error is not None:
                    raise _RolledBackError  # noqa: TRY301 - out of the transaction
                await collected.store(session)
        except _HandledBeforeError:
            return None
        except _RolledBackError:
            return error
        except Exception as raised:  # noqa: BLE001 - whatever it is, nothing is known to be committed
            return raised
        mode.outbox.kick()
        return None

    # -- told by the dispatch ------------------------------------------------------------------------------------------

    async def bury(self, connection: AsyncConnection, delivery: Delivery, error: BaseException) -> None:
        """Take ``delivery`` off the disk in the transaction that stores it as a dead letter, and record the answer."""
        if self._exactly_once is not None and self._in_transaction(delivery):
            await self._exactly_once.answer(connection, delivery, error)
        await self.park(connection, delivery)

    async def park(self, connection: AsyncConnection, delivery: Delivery) -> None:
        """Take ``delivery`` off the disk in the transaction of ``connection``."""
        if self._store.table is not None:
            await self._store.table.remove_within(connection, [delivery.stored or 0])

    def buried(self, delivery: Delivery) -> None:
        """Have what was answered sent."""
        if self._exactly_once is not None:
            self._exactly_once.outbox.kick()
