"""Messages with equal bodies, and packet identifiers that prove nothing: none is lost."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from core.mqtt.publication import Publication
from core.publisher import Publisher
from tests.support.mosquitto import Mosquitto
from tests.support.numbering_broker import Numbers, numbering
from tests.support.postgres import Postgres, fetch, postgres
from tests.support.stream import MODEL
from tests.support.waiting import until
from tests.support.worker import Project, Projects, Publishers, Worker

pytestmark = pytest.mark.case(2)

ROUTER = """
import asyncio
from pathlib import Path
from app.models.number import Number
from core.model import Model
from core.router import Router

router = Router()

@router.on("once", delivery="exactly_once", order_by=None, timeout=600)
async def store(context):
    if Path("hold").exists():
        Path("held").touch()
        await asyncio.Event().wait()
    await Model.create(Number, source="once", number=0)

@router.on("least")
async def pass_over(context):
    pass
"""
OPEN = Publication("once", b'"open"', qos=1)


class Line:
    """A worker for equal messages, and the count of its rows."""

    def __init__(self, one: Project, database: str) -> None:
        self.project = one
        self.url = postgres().new_database() if database == "PostgreSQL" else ""
        one.set(MQTT_CLIENT_ID="w", MQTT_KEEPALIVE=5)
        if self.url:
            one.set(DATABASE_URL=self.url)
        self._hold = one.folder / "hold"

    async def rows(self) -> int:
        found = await fetch(self.url, "SELECT count(*) FROM numbers") if self.url else None
        return found[0][0] if found is not None else self.project.count("numbers")

    async def stored(self, count: int) -> None:
        async def there() -> bool:
            return await self.rows() >= count

        await until(there, 60)
        await asyncio.sleep(0.3)
        assert await self.rows() == count

    def hold(self) -> None:
        """Have handlers hang from now on."""
        self._hold.touch()

    async def held(self) -> None:
        """Wait until what was sent is under way. One transaction hangs, and the others wait for it."""
        await until((self.project.folder / "held").exists, 60)
        await asyncio.sleep(0.5)

    def release(self) -> None:
        self._hold.unlink()
        (self.project.folder / "held").unlink()

    async def worker(self) -> Worker:
        return await self.project.start().ready(60)


@pytest.fixture(params=["PostgreSQL", "SQLite"])
def line(request: pytest.FixtureRequest, project: Projects) -> Line:
    return Line(project({"numbers": ROUTER}, {"number": MODEL}), request.param)


async def opened(out: Publisher, count: int) -> None:
    await asyncio.gather(*[out.send(OPEN) for _ in range(count)])


def forget(broker: Mosquitto) -> None:
    """Restart ``broker`` without what it has saved."""
    broker.stop()
    (broker.folder / "mosquitto.db").unlink()
    broker.start()


async def killed_with_15_in_hand(line: Line, out: Publisher, worker: Worker) -> None:
    """Kill ``worker`` while it has 15 messages in hand. Have the next one store them beside 15 earlier ones."""
    await opened(out, 15)
    await line.held()
    worker.kill()
    line.release()
    worker = await line.worker()
    await line.stored(30)
    assert await worker.stop() == 0


@pytest.mark.parametrize("meanwhile", ["working", "stopped"])
async def test_a_broker_that_forgot_its_sessions(
    line: Line,
    mosquitto: Mosquitto,
    publisher: Publishers,
    meanwhile: str,
) -> None:
    line.project.set(MQTT_URL=mosquitto.url)
    worker = await line.worker()
    out = await publisher(mosquitto.url)
    await opened(out, 15)
    await line.stored(15)
    if meanwhile == "stopped":
        assert await worker.stop() == 0
    await asyncio.to_thread(forget, mosquitto)
    if meanwhile == "working":
        await worker.says("connected again", 60)
        assert await worker.stop() == 0
    line.hold()
    worker = await line.worker()
    await killed_with_15_in_hand(line, out, worker)


async def test_other_routes_turn_the_circle_of_identifiers(
    line: Line,
    mosquitto: Mosquitto,
    publisher: Publishers,
) -> None:
    line.project.set(MQTT_URL=mosquitto.url)
    worker = await line.worker()
    out = await publisher(mosquitto.url)
    await opened(out, 15)
    await line.stored(15)
    left = 65_535 - 15
    while left:
        await asyncio.gather(*[out.send(Publication("least", b"1", qos=1)) for _ in range(min(left, 500))])
        left -= min(left, 500)
    line.hold()
    await killed_with_15_in_hand(line, out, worker)


async def test_a_redelivery_is_known_across_the_circle(
    line: Line,
    mosquitto: Mosquitto,
    publisher: Publishers,
) -> None:
    """The record of a worker that was killed holds for what it has committed, wherever in the circle that was."""
    line.project.set(MQTT_URL=mosquitto.url)
    worker = await line.worker()
    out = await publisher(mosquitto.url)
    for _ in range(3):
        await opened(out, 400)
        worker.kill()
        worker = await line.worker()
    await line.stored(1200)
    assert await worker.stop() == 0


async def test_a_new_session_waits_for_the_database(
    project: Projects,
    mosquitto: Mosquitto,
    publisher: Publishers,
    own_postgres: Postgres,
) -> None:
    line = Line(project({"numbers": ROUTER}, {"number": MODEL}), "SQLite")
    line.url = own_postgres.new_database()
    line.project.set(MQTT_URL=mosquitto.url, DATABASE_URL=line.url)
    worker = await line.worker()
    out = await publisher(mosquitto.url)
    await opened(out, 15)
    await line.stored(15)
    await asyncio.to_thread(own_postgres.stop)
    await asyncio.to_thread(forget, mosquitto)
    await worker.says("nothing is subscribed, because the database could not record the session", 60)
    # Killed before the database could be told: the next process finds an empty session in which nobody has subscribed.
    worker.kill()
    await asyncio.to_thread(own_postgres.start)
    line.hold()
    worker = await line.worker()
    await killed_with_15_in_hand(line, out, worker)


WAYS: list[tuple[Numbers, bool, str]] = [
    ("anew", True, "sends a message again under another packet identifier"),
    ("lowest", True, "gives a packet identifier to another message as soon as it is free"),
    ("circle", False, "sends a message again without setting DUP"),
]


@pytest.mark.parametrize(("numbers", "dup", "told"), WAYS)
async def test_a_broker_whose_identifiers_prove_nothing(line: Line, numbers: Numbers, dup: bool, told: str) -> None:
    async with numbering(numbers, dup=dup) as broker:
        line.project.set(MQTT_URL=broker.url)
        worker = await line.worker()
        first = worker
        for _ in range(8):
            broker.publish("once", b'"open"')
        await line.stored(8)
        line.hold()
        for _ in range(8):
            broker.publish("once", b'"open"')
        await line.held()
        worker.kill()
        line.release()
        worker = await line.worker()
        await line.stored(16)
        asked = broker.connects.count("w-probe")
        assert await worker.stop() == 0
        for one in (first, worker):
            assert one.output.count(told) == 1
            assert "dedup=" in one.output
        # The second worker has found the answer where the first one has kept it.
        assert asked == 4
        code, said = await line.project.command("doctor")
        found = next(row for row in said.splitlines() if "redelivery" in row)
        assert code == 0
        assert found.startswith("warn")
        assert told in found
        assert "w-probe" not in broker.sessions


@pytest.mark.parametrize("lost", ["session", "messages"])
async def test_a_broker_that_sends_nothing_again_is_told(project: Projects, lost: str) -> None:
    async with numbering(keeps=lost != "session", resends=lost != "messages") as broker:
        one = project({"numbers": ROUTER}, {"number": MODEL}, MQTT_URL=broker.url)
        worker = await one.start().ready(60)
        assert "does not send again what was not acknowledged" in worker.output
        assert await worker.stop() == 0


@pytest.mark.parametrize("numbers", ["circle", "lowest"])
async def test_a_broker_that_refuses_to_be_asked(line: Line, numbers: Numbers) -> None:
    async with numbering(numbers, refuses="routemq/probe/") as broker:
        line.project.set(MQTT_URL=broker.url)
        worker = await line.worker()
        assert worker.output.count("has not shown how it uses packet identifiers") == 1
        assert "Allow the client w-probe to subscribe and to publish to routemq/probe/+" in worker.output
        for count in (8, 16):
            for _ in range(8):
                broker.publish("once", b'"open"')
            await line.stored(count)
        if numbers == "lowest":
            # It was seen to take identifiers again that it cannot have come to yet.
            await worker.says("as soon as it is free")
        line.hold()
        for _ in range(8):
            broker.publish("once", b'"open"')
        await line.held()
        worker.kill()
        line.release()
        worker = await line.worker()
        await line.stored(24)
        assert await worker.stop() == 0
        code, said = await line.project.command("doctor")
        assert code == 0
        assert "Allow the client w-probe" in said


async def test_what_was_stored_twice_is_told_where_dup_is_never_set(line: Line) -> None:
    async with numbering(dup=False) as broker:
        line.project.set(MQTT_URL=broker.url)
        worker = await line.worker()
        broker.ignores_pubacks = True
        for _ in range(8):
            broker.publish("once", b'"open"')
        await line.stored(8)
        broker.ignores_pubacks = False
        broker.cut()
        await line.stored(16)
        assert worker.output.count("stored twice") == 1
        assert await worker.stop() == 0


async def test_the_worker_passes_over_its_own_questions(project: Projects, mosquitto: Mosquitto) -> None:
    wide = ROUTER.replace('"least"', '"#"')
    one = project({"numbers": wide}, {"number": MODEL}, MQTT_URL=mosquitto.url, MQTT_CLIENT_ID="w")
    worker = await one.start().ready(60)
    assert await worker.stop() == 0
    # The answer was found out too long ago. The session is there by now, and its filter takes all topics.
    connection = sqlite3.connect(one.folder / "storage" / "routemq.db")
    assert connection.execute("UPDATE routemq_sessions SET identity_at = 5").rowcount == 1
    connection.commit()
    connection.close()
    worker = await one.start().ready(60)
    await until(lambda: one.rows("SELECT identity FROM routemq_sessions WHERE identity_at > 5") == [("CIRCLE",)])
    assert await worker.stop() == 0
    assert "4 received, 0 done, 4 dropped" in worker.output
    assert one.count("routemq_dead_letters") == 0
