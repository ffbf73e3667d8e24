"""A message or a route that alone meets faults costs itself alone: others go on, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from sqlalchemy import text

from core.context import Context
from core.database.current import configured
from core.delivery import backlog
from core.delivery.backlog import Store
from core.errors import Reject
from core.handling import delivery
from core.handling.failures import outage
from core.model import Model
from core.records import tables
from core.records.dead_letter_file import DeadLetterFile
from core.records.dead_letter_table import DeadLetterTable
from core.retry import Retry
from core.router import Router
from tests.database.conftest import url_of
from tests.support.memory_worker import MemoryWorker, running
from tests.support.models import Meter, Plain
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

Delivery = Literal["at_least_once", "exactly_once"]
BOTH: tuple[Delivery, ...] = ("at_least_once", "exactly_once")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (outage, delivery, backlog):
        monkeypatch.setattr(module, "FIRST_PAUSE", 0.005)
        monkeypatch.setattr(module, "MAX_PAUSE", 0.05)


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    Model.configure(url_of(request.param, tmp_path))
    await configured().create_tables(Plain.metadata, tables.metadata)
    yield request.param
    await Model.close()


@pytest.fixture
async def pg(tmp_path: Path) -> AsyncIterator[None]:
    Model.configure(url_of("postgresql", tmp_path))
    await configured().create_tables(Plain.metadata, tables.metadata)
    yield
    await Model.close()


@pytest.fixture
def router() -> Router:
    return Router()


def store(most: int = 10_000) -> Store:
    return Store(DeadLetterTable(configured().begin, most, table=tables.backlog, client_id="worker"))


@asynccontextmanager
async def worker(router: Router, *, breaker_after: int = 50, most: int = 10_000) -> AsyncIterator[MemoryWorker]:
    async with running(
        router, exactly_once=True, backlog=store(), breaker_after=breaker_after, dead_letters=letters(most)
    ) as running_worker:
        yield running_worker


def letters(most: int = 10_000) -> DeadLetterTable:
    return DeadLetterTable(configured().begin, most)


async def run_sql(*statements: str) -> None:
    async with configured().begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def serials() -> list[str]:
    return sorted(str(meter.serial) for meter in await Model.all(Meter))


async def left_nothing() -> bool:
    place = store().place
    return place is not None and await place.count() == 0


def storing(router: Router, how: Delivery) -> None:
    @router.on("t/<n>", delivery=how, retry=Retry(attempts=2, first=0.001))
    async def keep(context: Context[int]) -> None:
        await Model.create(Meter, serial=str(context["payload"]))


REFUSE_ONE = (
    "CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN IF NEW.serial = '7' THEN RAISE EXCEPTION 'full' USING ERRCODE = "
    "'{code}'; END IF; RETURN NEW; END $$ LANGUAGE plpgsql"
)
TRIGGER = "CREATE TRIGGER refuse BEFORE INSERT ON meters FOR EACH ROW EXECUTE FUNCTION refuse()"


# -- one message with the code of an infrastructure's fault --------------------------------------------------------------


@pytest.mark.parametrize("how", BOTH)
@pytest.mark.parametrize("code", ["53100", "53200", "57P03"])
@pytest.mark.case(7)
async def test_a_message_that_alone_meets_the_fault_becomes_a_dead_letter(
    pg: None, router: Router, how: Delivery, code: str
) -> None:
    storing(router, how)
    await run_sql(REFUSE_ONE.format(code=code), TRIGGER)
    async with worker(router) as running_worker:
        ledger = running_worker.ledger
        for number in range(20):
            await running_worker.send(f"t/{number}", b"%d" % number)
        # The others do not wait for it.
        await until(lambda: ledger.done == 19, seconds=20)
        number = 20
        while not ledger.dead_lettered:
            await running_worker.send(f"t/{number}", b"%d" % number)
            number += 1
            await until(lambda: ledger.in_hand <= 1, seconds=20)
            await asyncio.sleep(0.01)
        await running_worker.settled()
    assert await serials() == sorted(str(each) for each in range(number) if each != 7)
    assert [letter.letter.body for letter in await letters().read()] == [b"7"]
    assert ledger.waiting == 0


@pytest.mark.case(7)
async def test_a_batch_with_such_a_message_is_halved(pg: None, router: Router) -> None:
    @router.on("t/<n>", batch=100, retry=Retry(attempts=1))
    async def keep(contexts: list[Context[int]]) -> None:
        await Model.create_many(Meter, [{"serial": str(context["payload"])} for context in contexts])

    await run_sql(REFUSE_ONE.format(code="53100"), TRIGGER)
    async with worker(router) as running_worker:
        for number in range(60):
            await running_worker.send(f"t/{number}", b"%d" % number)
        await until(lambda: running_worker.ledger.done == 59, seconds=20)
        number = 60
        while not running_worker.ledger.dead_lettered:
            await running_worker.send("t/more", b"%d" % number)
            number += 1
            await until(lambda: running_worker.ledger.in_hand <= 1, seconds=20)
            await asyncio.sleep(0.01)
        # What was stored on disk meanwhile is handled from there.
        await until(lambda: running_worker.ledger.in_hand == 0)
        await until(left_nothing)
    assert [letter.letter.body for letter in await letters().read()] == [b"7"]
    assert await serials() == sorted(str(each) for each in range(number) if each != 7)


# -- a route whose messages all fail -------------------------------------------------------------------------------------


def failing(router: Router, how: Delivery, broken: Callable[[], bool]) -> None:
    @router.on("bad/<n>", delivery=how, retry=Retry(attempts=1))
    async def fail(context: Context[int]) -> None:
        if broken():
            raise KeyError("a bug")
        await Model.create(Meter, serial=f"bad-{context['payload']:04}")


@pytest.mark.parametrize("how", BOTH)
@pytest.mark.case(9)
async def test_a_route_whose_messages_all_fail_stands_and_goes_on_once_one_succeeds(
    database: str, router: Router, how: Delivery, caplog: pytest.LogCaptureFixture
) -> None:
    bug = [True]
    failing(router, how, lambda: bool(bug))
    storing(router, how)
    async with worker(router, breaker_after=10) as running_worker:
        ledger = running_worker.ledger
        for number in range(200):
            await running_worker.send(f"bad/{number % 7}", b"%d" % number)
            await running_worker.send(f"t/{number}", b"%d" % number)
        # The other route goes on, nothing is in hand, and only the first ten are dead letters.
        await until(lambda: ledger.in_hand == 0, seconds=30)
        assert (ledger.done, ledger.dead_lettered, ledger.waiting) == (200, 10, 190)
        assert await store().place.count() == 190  # type: ignore[union-attr]
        bug.clear()
        for number in range(200, 220):
            await running_worker.send(f"bad/{number % 7}", b"%d" % number)
        await until(lambda: "goes on" in caplog.text, seconds=30)
        await running_worker.send("bad/1", b"999")
        await running_worker.settled()
    dead = [int(each.letter.body) for each in await letters().read()]
    async with configured().begin() as connection:
        rows = (await connection.execute(text("SELECT serial FROM meters WHERE serial LIKE 'bad-%' ORDER BY id"))).all()
    handled = [int(serial[4:]) for (serial,) in rows]
    assert sorted(dead + handled) == [*range(220), 999]
    for key in range(7):
        own = [each for each in handled if each % 7 == key and each != 999]
        assert own == sorted(own)
    assert "stands, because its last 10 messages have failed with KeyError" in caplog.text
    assert await store().place.count() == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("how", BOTH)
@pytest.mark.case(9)
async def test_what_waits_is_handled_after_a_restart(database: str, router: Router, how: Delivery) -> None:
    bug = [True]
    failing(router, how, lambda: bool(bug))
    async with worker(router, breaker_after=3) as running_worker:
        for number in range(20):
            await running_worker.send("bad/1", b"%d" % number)
        await until(lambda: running_worker.ledger.waiting == 17, seconds=20)
    bug.clear()
    router = Router()
    failing(router, how, lambda: bool(bug))
    async with worker(router, breaker_after=3) as running_worker:
        await running_worker.send("bad/1", b"20")
        await until(lambda: running_worker.ledger.done == 18, seconds=20)
        await running_worker.settled()
    assert await serials() == [f"bad-{number:04}" for number in range(3, 21)]


@pytest.mark.case(9)
async def test_a_route_stands_without_a_database_too(router: Router, tmp_path: Path) -> None:
    bug, handled = [True], []

    @router.on("bad/<n>", retry=Retry(attempts=1))
    async def fail(context: Context[int]) -> None:
        if bug:
            raise KeyError("a bug")
        handled.append(context["payload"])

    place = Store(file=DeadLetterFile(tmp_path / "backlog.jsonl", 1000))
    async with running(router, backlog=place, breaker_after=3) as running_worker:
        for number in range(20):
            await running_worker.send("bad/1", b"%d" % number)
        await until(lambda: running_worker.ledger.waiting == 17, seconds=20)
        bug.clear()
        await until(lambda: len(handled) == 17, seconds=20)
        await running_worker.settled()
    assert handled == list(range(3, 20))
    assert len(running_worker.dead_letters.letters) == 3


@pytest.mark.case(9)
async def test_messages_that_are_refused_by_their_handler_do_not_make_their_route_stand(
    database: str, router: Router
) -> None:
    @router.on("bad/<n>")
    async def refuse(context: Context[int]) -> None:
        raise Reject("this one is wrong")

    async with worker(router, breaker_after=3) as running_worker:
        for number in range(20):
            await running_worker.send("bad/1", b"%d" % number)
        await until(lambda: running_worker.ledger.dead_lettered == 20, seconds=20)


async def test_nothing_stands_where_the_breaker_is_off(database: str, router: Router) -> None:
    failing(router, "at_least_once", lambda: True)
    async with worker(router, breaker_after=0) as running_worker:
        for number in range(60):
            await running_worker.send(f"bad/{number}", b"%d" % number)
        await until(lambda: running_worker.ledger.dead_lettered == 60, seconds=20)


# -- what is missing in the database -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", BOTH)
@pytest.mark.case(9)
async def test_a_missing_table_makes_its_route_wait_and_no_message_a_dead_letter(
    database: str, router: Router, how: Delivery, caplog: pytest.LogCaptureFixture
) -> None:
    storing(router, how)
    await run_sql("ALTER TABLE meters RENAME TO moved")
    async with worker(router) as running_worker:
        ledger = running_worker.ledger
        for number in range(100):
            await running_worker.send(f"t/{number % 5}", b"%d" % number)
        await until(lambda: ledger.waiting == 100, seconds=30)
        assert (ledger.done, ledger.dead_lettered) == (0, 0)
        assert "stands, because the database refuses its messages" in caplog.text
        await run_sql("ALTER TABLE moved RENAME TO meters")
        await until(lambda: ledger.done == 100, seconds=30)
        await running_worker.settled()
    assert await serials() == sorted(str(number) for number in range(100))


# -- too many dead letters -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", BOTH)
@pytest.mark.case(9)
async def test_a_route_stands_where_no_more_dead_letters_may_be_stored(
    database: str, router: Router, how: Delivery, caplog: pytest.LogCaptureFixture
) -> None:
    @router.on("bad/<n>", delivery=how)
    async def refuse(context: Context[int]) -> None:
        raise Reject("this one is wrong")

    storing(router, how)
    async with worker(router, most=20) as running_worker:
        ledger = running_worker.ledger
        for number in range(60):
            await running_worker.send(f"bad/{number}", b"%d" % number)
        await until(lambda: ledger.in_hand == 0, seconds=20)
        # The bound is kept but for what is on its way at the same moment, on each connection.
        assert 20 <= ledger.dead_lettered <= 40
        assert ledger.dead_lettered + ledger.waiting == 60
        await running_worker.send("t/1", b"1")
        await until(lambda: ledger.done == 1, seconds=20)
        assert "DEAD_LETTER_MAX=20" in caplog.text
        # Somebody looks at them, and drops them.
        seen = 0
        while ledger.dead_lettered < 60:
            gone = [each.id for each in await letters().read()]
            seen += await letters().remove(gone)
            await asyncio.sleep(0.01)
    assert seen + await letters().count() == 60


# -- messages that wait for their next run -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", BOTH)
@pytest.mark.case(11)
async def test_a_device_whose_messages_fail_does_not_take_the_room_of_the_others(
    database: str, router: Router, how: Delivery
) -> None:
    storing(router, how)

    @router.on("bad/<n>", delivery=how, retry=Retry(attempts=3, first=60, jitter=False))
    async def fail(context: Context[int]) -> None:
        raise OSError("a service is away")

    async with running(router, exactly_once=True, limit=100) as running_worker:
        ledger = running_worker.ledger
        for number in range(200):
            await running_worker.send("bad/1", b"%d" % number)
        for number in range(50):
            await running_worker.send(f"t/{number}", b"%d" % number)
        await until(lambda: ledger.done == 50, seconds=30)
        # What is held is what the share allows, and no dead letter more than was needed for that.
        assert 100 <= ledger.dead_lettered <= 190
        await running_worker.stop(timeout=0.1)
