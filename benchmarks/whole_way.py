"""The whole way: QoS 1 publish on 100 topics -> handler -> committed row in PostgreSQL 18, beside other systems.

    make bench              writes benchmarks/RESULTS.md
    make bench-quick        measures for a short time, and prints only

Each system runs in a process of its own. Other systems run in environments of their own under `.bench/`. The systems take
turns within each round, and the medians of all rounds are shown. CPU is that of the system's process alone, so that it
holds on a noisy machine too. Messages per second are those of this machine. Rows are counted at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import psutil

from benchmarks.stores import TABLE, PostgresStore, SqliteStore, Store, new_server
from tests.support.mosquitto import Mosquitto
from tests.support.worker import Project

ROOT = Path(__file__).parents[1]
BENCH = ROOT / ".bench"
SYSTEMS = ROOT / "benchmarks" / "systems"
MODEL = """
from sqlalchemy.orm import Mapped, mapped_column
from core.model import Base

class Reading(Base):
    __tablename__ = "readings"

    id: Mapped[int] = mapped_column(primary_key=True)
    device_id: Mapped[str]
    number: Mapped[int]
    value: Mapped[float]
    unit: Mapped[str]
    sent_at: Mapped[float]
"""
ROUTER = """
from app.models.reading import Reading
from core.model import Model
from core.router import Router

router = Router()

@router.on("d/<device_id>/data", {options})
async def store({name}):
    {body}
"""
CREATE = 'await Model.create(Reading, device_id=context["params"]["device_id"], **context["payload"])'
MANY = (
    'await Model.create_many(Reading, [{"device_id": c["params"]["device_id"], **c["payload"]} for c in contexts], '
    "returning=False)"
)
PUBLISH = """
import asyncio, sys, time
from dataclasses import replace
from core.mqtt.publication import Publication
from core.transport.connection import Deaf
from core.transport.connect import connector
from core.transport.options import parse_url

async def main(url, messages, rate, topics):
    options = replace(parse_url(url), client_id="publisher", clean_start=True, transport="native")
    connection = connector(options)(Deaf(), 1)
    await connection.open()

    def publish(number):
        body = b'{"number": %d, "value": 21.5, "unit": "celsius", "sent_at": %.6f}' % (number, time.time())
        return connection.publish(Publication(f"d/{number % topics}/data", body, qos=1))

    if rate:
        for number in range(messages):
            await publish(number)
            await asyncio.sleep(1 / rate)
    else:
        for start in range(0, messages, 500):
            await asyncio.gather(*(publish(number) for number in range(start, min(start + 500, messages))))
    await connection.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
"""


@dataclass
class System:
    """One system, and what was measured of it.

    - ``name``: its name in the table.
    - ``promise``: what it promises at its speed.
    - ``messages``: how many messages it gets.
    - ``script``: a file in `benchmarks/systems/`. None for RouteMQ itself.
    - ``python``: the Python that runs the script. None for this one.
    - ``options``: the options of RouteMQ's route.
    - ``settings``: RouteMQ's settings.
    - ``topics``: how many topics the messages go to.
    - ``sqlite``: whether it stores in SQLite. PostgreSQL otherwise.
    - ``cpu``: microseconds for each message, by round.
    - ``rate``: messages per second, by round.
    - ``rss``: MiB of memory, by round.
    - ``latencies``: milliseconds from publish to commit, of all rounds.
    """

    name: str
    promise: str
    messages: int
    script: str | None = None
    python: Path | None = None
    options: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    topics: int = 100
    sqlite: bool = False
    cpu: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)


class FailedError(Exception):
    """A system does not do what is to be measured."""


class Machine:
    """The broker and the database that all systems use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = new_server()
        self._broker: Mosquitto | None = None
        self.runs = 0

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        assert self._broker is not None
        return self._broker.port

    def fresh_broker(self) -> None:
        """Start a broker that knows no session. An old session would collect everything that the next system gets."""
        self.stop()
        self._broker = Mosquitto(self.folder / f"mosquitto-{self.runs}", "max_inflight_messages 1000").start()

    def stop(self) -> None:
        if self._broker is not None:
            self._broker.kill()

    def start(self, system: System, database: str) -> tuple[psutil.Process, subprocess.Popen[bytes]]:
        self.runs += 1
        if system.script is not None:
            environment = os.environ | {"BENCH_PORT": str(self.port), "BENCH_DATABASE": database, "PYTHONPATH": ""}
            log = (self.folder / f"{self.runs}.log").open("wb")
            arguments = [str(system.python or sys.executable), str(SYSTEMS / system.script)]
            process = subprocess.Popen(arguments, env=environment, stdout=log, stderr=log, cwd=self.folder)
            return psutil.Process(process.pid), process
        many = "batch" in system.options
        router = ROUTER.format(
            options=system.options or "qos=1", name="contexts" if many else "context", body=MANY if many else CREATE
        )
        project = Project(self.folder / f"project-{self.runs}", {"bench": router}, {"reading": MODEL})
        settings = {"MQTT_URL": self.url, "MQTT_CLIENT_ID": f"bench-{self.runs}", "DATABASE_URL": database}
        worker = project.set(**settings | system.settings).start()
        return psutil.Process(worker.process.pid), worker.process

    async def publish(self, messages: int, rate: float = 0, topics: int = 100) -> None:
        arguments = [sys.executable, "-c", PUBLISH, self.url, str(messages), str(rate), str(topics)]
        process = await asyncio.create_subprocess_exec(*arguments, cwd=ROOT)
        if await process.wait():
            raise SystemExit("the publisher failed")


async def measure(machine: Machine, system: System, messages: int, seconds: float) -> None:
    """Run ``system`` once. Measure its cost for ``messages``, then its latency at 100 messages/s for ``seconds``."""
    machine.fresh_broker()
    store: Store
    if system.sqlite:
        store = SqliteStore(machine.folder / f"readings-{machine.runs}.db")
    else:
        store = await PostgresStore.make(machine.postgres)
    process, popen = machine.start(system, store.url)
    try:
        deadline = time.monotonic() + 60
        while not await store.count():
            if time.monotonic() > deadline or popen.poll() is not None:
                raise FailedError(f"{system.name} stores nothing. See the logs in {machine.folder}")
            await machine.publish(1, topics=system.topics)
            await asyncio.sleep(0.3)
        await asyncio.sleep(1)
        await store.empty()
        before, began = sum(process.cpu_times()[:2]), time.monotonic()
        publishing = asyncio.create_task(machine.publish(messages, topics=system.topics))
        stored = 0
        while stored < messages:
            await asyncio.sleep(0.05)
            stored = await store.count()
            if time.monotonic() - began > 300:
                raise FailedError(f"{system.name} stored {stored:,} of {messages:,} messages within 300 s")
        system.rate.append(messages / (time.monotonic() - began))
        system.cpu.append((sum(process.cpu_times()[:2]) - before) / messages * 1e6)
        system.rss.append(process.memory_info().rss / 2**20)
        await publishing
        await asyncio.sleep(0.5)
        await store.empty()
        if system.sqlite:
            return
        await machine.publish(int(100 * seconds), rate=100, topics=system.topics)
        await asyncio.sleep(0.5)
        system.latencies += await store.latencies()
    finally:
        process.kill()
        popen.wait()
        await store.close()


async def bare_commits(machine: Machine, seconds: float) -> list[float]:
    """Return the milliseconds of INSERT and COMMIT by asyncpg alone, 100 times a second."""
    connection = await asyncpg.connect(machine.postgres.new_database().replace("+asyncpg", ""))
    await connection.execute(TABLE)
    insert = "INSERT INTO readings (device_id, number, value, unit, sent_at) VALUES ($1, $2, $3, $4, $5)"
    taken = []
    for number in range(int(100 * seconds)):
        began = time.perf_counter()
        async with connection.transaction():
            await connection.execute(insert, "d", number, 21.5, "celsius", 0.0)
        taken.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.01)
    await connection.close()
    return taken


def environment(name: str, python: str, *packages: str) -> Path | None:
    """Return the Python of an environment under `.bench/` with ``packages``. Return None where there is no ``python``."""
    folder = BENCH / name
    path = folder / "bin" / "python"
    if not path.exists():
        found = shutil.which(python)
        if found is None or subprocess.run([found, "-c", "import venv"], check=False).returncode:
            return None
        print(f"making {folder.relative_to(ROOT)} with {', '.join(packages)}", flush=True)
        subprocess.run([found, "-m", "venv", folder], check=True)
        subprocess.run([path, "-m", "pip", "install", "-q", *packages], check=True)
    return path


def systems(scale: float, *, peers: bool) -> list[System]:
    """Return the systems to be measured.

    ``scale`` multiplies the numbers of messages. With ``peers``, other systems are measured too.
    """
    fast, slow = int(40_000 * scale), int(3_000 * scale)
    found = [
        System("RouteMQ, exactly_once", "stored once, then acknowledged", fast, options='delivery="exactly_once"'),
        System("RouteMQ, at_least_once", "stored, then acknowledged", fast),
        System("RouteMQ, batch=500 and COPY", "stored, then acknowledged", fast, options="batch=500"),
        System(
            "RouteMQ, exactly_once, aiomqtt, MQTT 5",
            "stored once, then acknowledged",
            fast,
            options='delivery="exactly_once"',
            settings={"MQTT_TRANSPORT": "aiomqtt"},
        ),
        System(
            "RouteMQ, exactly_once, aiomqtt, MQTT 3.1.1",
            "stored once, then acknowledged",
            fast,
            options='delivery="exactly_once"',
            settings={"MQTT_VERSION": "3.1.1"},
        ),
        System(
            "RouteMQ, exactly_once, SQLite", "stored once, then acknowledged", fast, options='delivery="exactly_once"',
            sqlite=True,
        ),
        System(
            "RouteMQ, exactly_once, one topic", "stored once, then acknowledged", fast // 2,
            options='delivery="exactly_once"', topics=1,
        ),
        System(
            "RouteMQ, batch=500, one topic", "stored, then acknowledged", fast // 2, options="batch=500", topics=1,
        ),
        System("practical limit: mqtt5 + COPY, no framework", "stored, then acknowledged", fast, "limit.py"),
    ]  # fmt: skip
    if peers:
        aiomqtt = environment(
            "handwritten", sys.executable, "aiomqtt==2.5.1", "sqlalchemy[asyncio]==2.1.9", "asyncpg==0.32.0"
        )
        faststream = environment(
            "faststream", sys.executable, "faststream[mqtt]==0.7.8", "sqlalchemy[asyncio]==2.1.9", "asyncpg==0.32.0"
        )
        routemq = environment("routemq-0.25", "python3.12", "routemq==0.25.0", "greenlet", "asyncpg==0.32.0")
        before = "acknowledged before it is stored"
        found += [
            System("hand-written aiomqtt 2.5.1 + SQLAlchemy", before, slow, "handwritten.py", aiomqtt),
            System(
                "FastStream 0.7.8 [mqtt]",
                "handled, then acknowledged, also when it failed",
                slow,
                "faststream_app.py",
                faststream,
            ),
        ]
        if routemq is not None:
            found.append(System("RouteMQ 0.25.0 (PyPI)", before, slow, "routemq_app.py", routemq))
        else:
            print("RouteMQ 0.25.0 is left out, because it needs python3.12, which is not installed")
    return found


def table(measured: list[System], bare: list[float]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| system | CPU us/message | messages/s | RSS MiB | p50 ms | p99 ms | at this speed |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for system in measured:
        if not system.cpu:
            lines.append(f"| {system.name} | | | | | | it did not get through |")
            continue
        cpu, rate, rss = (statistics.median(values) for values in (system.cpu, system.rate, system.rss))
        p50, p99 = (f"{percentile(system.latencies, part):.1f}" if system.latencies else "" for part in (50, 99))
        lines.append(f"| {system.name} | {cpu:,.1f} | {rate:,.0f} | {rss:,.0f} | {p50} | {p99} | {system.promise} |")
    lines.append(f"| bare `INSERT; COMMIT` by asyncpg | | | | {percentile(bare, 50):.1f} | {percentile(bare, 99):.1f} | |")
    return "\n".join(lines)


def percentile(values: list[float], part: int) -> float:
    """Return the percentile ``part``, from 1 to 99, of ``values``."""
    return statistics.quantiles(values, n=100, method="inclusive")[part - 1]


async def bench(*, quick: bool) -> None:
    """Measure everything, and print it. Without ``quick``, measure for longer and write RESULTS.md too."""
    rounds, seconds = (1, 2.0) if quick else (3, 6.0)
    measured = systems(0.25 if quick else 1, peers=not quick)
    bare: list[float] = []
    with tempfile.TemporaryDirectory(prefix="rqbench") as folder:
        machine = Machine(Path(folder))
        try:
            for number in range(rounds):
                bare += await bare_commits(machine, seconds)
                for system in measured:
                    print(f"round {number + 1} of {rounds}: {system.name}", flush=True)
                    try:
                        await measure(machine, system, system.messages, seconds)
                    except FailedError as error:
                        print(f"  {error}", flush=True)
        finally:
            machine.stop()
    found = table(measured, bare)
    print(found)
    if not quick:
        machine_said = (
            f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        )
        text = (
            f"# Results\n\n{datetime.now(UTC):%Y-%m-%d}, {machine_said}, Mosquitto, PostgreSQL 18. Medians of {rounds} rounds in "
            "one run.\nCPU is that of the system's process alone. p50 and p99: from publish to commit, at 100 messages/s.\n"
            "Made by `make bench`.\n\n"
        )
        (ROOT / "benchmarks" / "RESULTS.md").write_text(text + found + "\n")


def main() -> None:
    """Run as the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="Measure one short round, without other systems.")
    asyncio.run(bench(quick=parser.parse_args().quick))


if __name__ == "__main__":
    main()
