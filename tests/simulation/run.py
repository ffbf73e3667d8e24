"""One run: a scenario from its first event to its last, and what was broken in it."""

from __future__ import annotations

import gc
import logging
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from core.errors import SessionTakenOverError
from core.handling import delivery as deliveries
from core.records import packets
from core.records.tables import metadata
from tests.simulation.application import BUGS, Table, router
from tests.simulation.invariants import Promise
from tests.simulation.process import CLIENT_ID, Setting, Worker
from tests.simulation.world.broker import Broker, Item
from tests.simulation.world.database import Files, Server
from tests.simulation.world.driver import DRIVER
from tests.simulation.world.loop import StuckError, World
from tests.simulation.world.nature import governed_by
from tests.simulation.world.network import Network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.scenario import Device, Fault, Scenario

PATIENCE = 240.0
"""Seconds after the last fault by which every message must have its end."""
SLOW = 75.0
"""Seconds more for each message whose handler is cut off at its deadline, and which may hold up the others of its key."""
DROPS_AFTER = 20.0
"""Seconds after which somebody drops dead letters where there may be few of them."""
RESTART = 5.0
"""Seconds after which a process that ended by itself is started again."""
STOPPING = 60.0
"""Seconds that the last stop may take."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run: what was broken, the digest of all that happened, and the story of it."""

    scenario: Scenario
    broken: tuple[str, ...]
    digest: str
    told: tuple[tuple[float, str, str], ...]

    @property
    def names(self) -> frozenset[str]:
        """The names of the invariants that were broken."""
        return frozenset(broken.partition(":")[0] for broken in self.broken)


@cache
def _files() -> Files:
    return Files(metadata, Table.metadata)


class _Log(logging.Handler):
    """Tells the world what the product logs."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.tell("log", f"{record.levelname} {record.getMessage()}"[:200])


class Run:
    """One run of ``scenario``. ``verbose`` tells what the product logs as well, which changes the digest."""

    def __init__(self, scenario: Scenario, *, verbose: bool = False) -> None:
        self._scenario = scenario
        self._verbose = verbose
        world = self.world = World(scenario.seed)
        self._network = Network(world, scenario.latency, splits=scenario.splits)
        self._server = DRIVER.server = Server(world, _files(), scenario.latency)
        setting = self._setting = Setting(world, self._network, self._server, router(scenario.routes))
        setting.receive_maximum = scenario.receive_maximum
        setting.dead_letter_max = scenario.dead_letter_max
        self._promise = Promise(scenario, self._server, setting.disk)
        self._broker = Broker(world, self._network, scenario.habits, self._promise.acknowledged)
        self._workers: list[Worker] = []
        self._buried: list[Worker] = []
        self._bug_until = 0.0
        self._faults_end = scenario.faults_end
        self._to_come = len(scenario.messages) + len(scenario.faults)
        self._ending = False
        self._restart_after = RESTART

    def result(self) -> Result:
        """Run it."""
        with (
            governed_by(self.world),
            _scaled(self._scenario.habits.circle),
            _quiet(_Log(self.world) if self._verbose else None),
        ):
            BUGS.is_deployed = lambda: self.world.now < self._bug_until
            try:
                self._live()
            except StuckError as error:
                self._promise.broken.append(f"stuck: {error}")
            finally:
                for worker in [*self._workers, *self._buried]:
                    worker.bury()
                self._server.finish()
        return Result(self._scenario, tuple(self._promise.broken), self.world.digest(), tuple(self.world.told))

    def _live(self) -> None:
        scenario, world = self._scenario, self.world
        for message in scenario.messages:
            world.at(message.at, self._publish, message)
        for fault in scenario.faults:
            world.at(fault.at, self._cause, fault)
        if scenario.dead_letter_max < len(scenario.messages):
            world.at(self._faults_end + DROPS_AFTER, self._drop_letters)
        self._start()
        slow = sum(message.kind == "slow" for message in scenario.messages)
        limit = self._faults_end + PATIENCE + SLOW * slow
        while not self._is_quiet() and world.step(limit):
            self._promise.turned(self._workers)
        self._ending = True
        world.tell("run", "everything has its end" if self._is_quiet() else "time is up")
        for worker in list(self._workers):
            if not worker.is_over:
                worker.stop()
        limit = world.now + STOPPING
        while any(not worker.is_over for worker in self._workers) and world.step(limit):
            self._promise.turned(self._workers)
        if any(not worker.is_over for worker in self._workers):
            self._promise.broken.append("does not stop: a worker did not stop")
        self._promise.check(self._broker, world.unhandled, CLIENT_ID)

    def _is_quiet(self) -> bool:
        if self._to_come or self.world.now < self._faults_end or self._broker.open_items(CLIENT_ID):
            return False
        if self._promise.waits():
            return False
        working = [worker for worker in self._workers if not worker.is_over]
        return bool(working) and all(
            worker.engine is not None
            and worker.session is not None
            and worker.session.stands
            and not worker.engine.ledger.in_hand
            for worker in working
        )

    def _publish(self, message: Device) -> None:
        self._to_come -= 1
        self.world.tell("device", f"publishes message {message.n} on {message.topic}: {message.body.decode()}")
        properties = {"user_properties": [("n", str(message.n))]} if self._scenario.numbered else {}
        self._broker.publish(
            Item(message.n, message.topic, message.body, properties, message.qos, message.kind == "ill_formed")
        )

    # -- processes -----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._ending:
            return
        worker = Worker(self._setting, len(self._workers) + len(self._buried) + 1, self._ended)
        self.world.tell(worker.name, "starts")
        self._workers.append(worker)

    def _ended(self, worker: Worker, error: BaseException | None) -> None:
        self.world.tell(worker.name, "has ended" if error is None else f"has ended: {type(error).__name__}: {error}")
        taken_over = isinstance(error, SessionTakenOverError)
        self._promise.ended(worker, None if taken_over else error)
        others = any(not other.is_over for other in self._workers)
        if not (taken_over and others):
            self.world.after(self._restart_after if worker.stops else RESTART, self._start)

    @property
    def _worker(self) -> Worker | None:
        """The latest process that lives."""
        return next((worker for worker in reversed(self._workers) if not worker.is_over and not worker.stops), None)

    def _die(self, worker: Worker, seconds: float) -> None:
        if worker.is_over:
            return
        self.world.tell(worker.name, "is killed")
        worker.kill()
        self._workers.remove(worker)
        self._buried.append(worker)
        if worker.loop in self.world.loops:
            self.world.loops.remove(worker.loop)
        self.world.after(seconds, self._start)

    def _drop_letters(self) -> None:
        """Let somebody look at the dead letters, and drop them, so that there is room for others."""
        worker = self._worker
        if self._ending:
            return
        if worker is not None and worker.engine is not None:
            worker.drop_letters(self._promise.dropped)
        self.world.after(DROPS_AFTER, self._drop_letters)

    # -- faults --------------------------------------------------------------------------------------------------------

    def _cause(self, fault: Fault) -> None:
        self._to_come -= 1
        self.world.tell("fault", str(fault))
        cause = getattr(self, f"_cause_{fault.kind}")
        cause(fault)

    def _cause_cut(self, fault: Fault) -> None:
        self._network.cut_all("all connections are cut")

    def _cause_cut_up(self, fault: Fault) -> None:
        for link in self._network.links:
            link.up.left = fault.count

    def _cause_cut_down(self, fault: Fault) -> None:
        for link in self._network.links:
            link.down.left = fault.count

    def _cause_silence(self, fault: Fault) -> None:
        self._network.silent_until = self.world.now + fault.seconds
        self.world.after(fault.seconds, self._network.cut_all, "connections are cut after a silence")

    def _cause_broker_restart(self, fault: Fault) -> None:
        self._broker.restart(fault.seconds, keeps=True)

    def _cause_broker_loses_sessions(self, fault: Fault) -> None:
        self._broker.restart(fault.seconds, keeps=False)

    def _cause_db_down(self, fault: Fault) -> None:
        self._server.crash(fault.seconds)

    def _cause_db_hangs(self, fault: Fault) -> None:
        self._server.hangs_until = self.world.now + fault.seconds
        if fault.how == "breaks":
            self.world.after(fault.seconds, self._server.crash, 0.0)

    def _cause_db_standby(self, fault: Fault) -> None:
        self._server.fail_over(fault.seconds)

    def _cause_db_lock(self, fault: Fault) -> None:
        self._server.locked_until, self._server.lock_code = self.world.now + fault.seconds, fault.how

    def _cause_db_code(self, fault: Fault) -> None:
        code, _, where = fault.how.split()
        self._server.codes.append([code, where, fault.count])

    def _cause_db_commit_lost(self, fault: Fault) -> None:
        self._server.lost_commits += [[fault.how, fault.seconds] for _ in range(fault.count)]

    def _cause_schema(self, fault: Fault) -> None:
        self._server.schema_until, self._server.schema_code = self.world.now + fault.seconds, fault.how

    def _cause_bug(self, fault: Fault) -> None:
        self._bug_until = self.world.now + fault.seconds

    def _cause_death(self, fault: Fault) -> None:
        worker = self._worker
        if worker is not None:
            worker.loop.fuse = fault.count
            worker.loop.burnt = lambda: self._die(worker, fault.seconds)

    def _cause_stop(self, fault: Fault) -> None:
        worker = self._worker
        if worker is not None:
            self._restart_after = fault.seconds
            worker.stop()

    def _cause_second_worker(self, fault: Fault) -> None:
        if self._worker is not None:
            self._start()


@contextmanager
def _scaled(circle: int) -> Iterator[None]:
    """Let the record keep half of the model's circle, as it keeps half of the real one. Keep the names of messages apart."""
    before = deliveries._process, deliveries._numbers
    scale = packets.CIRCLE / circle
    bounds = {name: getattr(packets, name) for name in ("CIRCLE", "HALF", "MAX_UNDER_WAY", "MARK_EVERY", "MAX_UNMARKED")}
    for name, bound in bounds.items():
        setattr(packets, name, int(bound / scale))
    try:
        yield
    finally:
        for name, bound in bounds.items():
            setattr(packets, name, bound)
        deliveries._process, deliveries._numbers = before


@contextmanager
def _quiet(handler: logging.Handler | None) -> Iterator[None]:
    """Keep the product's log to the story. Keep the collector and asynchronous generators from acting by themselves."""
    log = logging.getLogger("routemq")
    before = log.level, log.propagate, log.handlers[:]
    hooks = sys.get_asyncgen_hooks()
    collects = gc.isenabled()
    log.setLevel(logging.INFO if handler is not None else logging.CRITICAL + 1)
    log.propagate = False
    library = logging.getLogger("sqlalchemy")
    library_level = library.level
    library.setLevel(logging.CRITICAL + 1)
    log.handlers[:] = [handler] if handler is not None else []
    sys.set_asyncgen_hooks(None, lambda generator: None)
    gc.disable()
    try:
        yield
    finally:
        log.setLevel(before[0])
        log.propagate = before[1]
        library.setLevel(library_level)
        log.handlers[:] = before[2]
        sys.set_asyncgen_hooks(*hooks)
        if collects:
            gc.enable()


def run(scenario: Scenario, *, verbose: bool = False) -> Result:
    """Run ``scenario`` and return what came of it."""
    return Run(scenario, verbose=verbose).result()
