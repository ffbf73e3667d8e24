"""What a run of a handler writes is kept if the handler returned, and undone if it raised. On both databases."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

from core.context import Context
from core.database import rounds
from core.database.current import configured
from core.errors import BatchError, RouteError
from core.handling.failures import outage
from core.handling.replay import every, run_again
from core.model import Model
from core.mqtt.publication import Publication
from core.records.dead_letter_table import DeadLetterTable
from core.records.tables import metadata
from core.retry import Retry
from core.router import Router
from tests.database.conftest import url_of
from tests.support.memory_worker import MemoryWorker, running
from tests.support.models import Meter, Plain
from tests.support.waiting import soon, until

pytestmark = pytest.mark.case(10)

Delivery = Literal["at_least_once", "at_most_once"]


@pytest.fixture(params=["sqlite", "postgresql"], autouse=True)
async def database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.005)
    Model.configure(url_of(request.param, tmp_path))
    await configured().create_tables(Plain.metadata, metadata)
    yield request.param
    await Model.close()


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """The statements that were sent, savepoints and commits among them."""
    seen: list[str] = []
    engine = configured().engine.sync_engine
    listeners: dict[str, Callable[..., None]] = {
        "before_cursor_execute": lambda connection, cursor, statement, *more: seen.append(statement.split()[0]),
        "savepoint": lambda connection, name: seen.append("SAVEPOINT"),
        "commit": lambda connection: seen.append("COMMIT"),
    }
    for name, listener in listeners.items():
        event.listen(engine, name, listener)
    yield seen
    for name, listener in listeners.items():
        event.remove(engine, name, listener)


@pytest.fixture
def router() -> Router:
    return Router()


async def create(serial: Any) -> None:
    await Model.create(Meter, serial=serial)


async def serials() -> list[str]:
    return sorted(str(meter.serial) for meter in await Model.all(Meter))


async def committed() -> list[str]:
    """Return the serials that are committed. It may be called within a run, which would see its own otherwise."""
    async with configured().session() as session:
        return [str(serial) for serial in await session.scalars(text("SELECT serial FROM meters"))]


async def send(worker: MemoryWorker, *names: Any) -> None:
    for name in names:
        await worker.send(f"t/{name}")


async def test_of_a_message_that_failed_nothing_is_kept_and_its_replay_stores_exactly_its_rows(router: Router) -> None:
    is_mended = False

    @router.on("t/<n>")
    async def store(context: Context[Any]) -> None:
        name = context["params"]["n"]
        await create(f"{name}a")
        await create(f"{name}b")
        await create(f"{name}c" if is_mended or name != "13" else None)

    async with running(router, exactly_once=True) as worker:
        await send(worker, *range(40))
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (39, 1)
        good = sorted(f"{name}{row}" for name in range(40) if name != 13 for row in "abc")
        assert await serials() == good
        is_mended = True
        letters = DeadLetterTable(configured().begin, 1000)
        tally = await run_again(router, worker.engine.dispatch.runner, letters, every(letters), lambda _: None)
        assert (tally.done, tally.failures) == (1, 0)
        assert await serials() == sorted([*good, "13a", "13b", "13c"])


@pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once"])
async def test_a_handler_that_raises_after_it_wrote_leaves_nothing_and_costs_nobody_a_row(
    router: Router, delivery: Delivery
) -> None:
    @router.on("t/<n>", delivery=delivery, retry=Retry(attempts=3, first=0.01))
    async def store(context: Context[Any]) -> None:
        name = context["params"]["n"]
        await create(f"{name}a")
        await create(f"{name}b")
        if name in {"3", "11", "30"}:
            raise OSError("not today")

    async with running(router, exactly_once=True) as worker:
        await send(worker, *range(40))
        await worker.settled()
        ended = worker.ledger.dead_lettered if delivery == "at_least_once" else worker.ledger.failed
        assert (worker.ledger.done, ended) == (37, 3)
    assert await serials() == sorted(f"{name}{row}" for name in range(40) if name not in {3, 11, 30} for row in "ab")


async def test_a_run_that_is_cut_off_leaves_nothing(router: Router) -> None:
    runs: list[str] = []

    @router.on("t/<n>", timeout=0.3)
    async def store(context: Context[Any]) -> None:
        runs.append(context["params"]["n"])
        await create(context["params"]["n"])
        if context["params"]["n"] == "bad":
            await asyncio.sleep(60)

    async with running(router, exactly_once=True) as worker:
        await send(worker, "a", "bad", "b")
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (2, 1)
    assert await serials() == ["a", "b"]


async def test_a_failure_before_any_write_touches_nobody(router: Router) -> None:
    runs: Counter[str] = Counter()

    @router.on("t/<n>")
    async def store(context: Context[Any]) -> None:
        name = context["params"]["n"]
        runs[name] += 1
        if name == "early":
            raise ValueError("before any write")
        # A duplicate: the only call of its run fails, so that the run has written nothing either.
        await create("1" if name == "late" else name)

    await create("1")
    async with running(router, exactly_once=True) as worker:
        await send(worker, 2, "early", 3, "late", 4)
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (3, 2)
    assert await serials() == ["1", "2", "3", "4"]
    assert set(runs.values()) == {1}


async def test_a_call_that_failed_without_a_gather_leaves_nothing_to_undo_either(router: Router) -> None:
    runs: Counter[str] = Counter()

    @router.on("t/<n>")
    async def store(context: Context[Any]) -> None:
        name = context["params"]["n"]
        runs[name] += 1
        await asyncio.sleep(0)
        await Model.create_many(Meter, [{"serial": name}, {"serial": None if name == "bad" else f"{name} too"}])

    async with running(router, exactly_once=True) as worker:
        await send(worker, 1, "bad", 2)
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (2, 1)
    assert await serials() == ["1", "1 too", "2", "2 too"]
    assert set(runs.values()) == {1}


async def test_an_error_that_the_handler_catches_undoes_its_own_call_alone(router: Router) -> None:
    @router.on("t/<n>")
    async def store(context: Context[Any]) -> None:
        name = context["params"]["n"]
        await create(f"{name}a")
        with pytest.raises(IntegrityError):
            await create(None)
        await create(f"{name}b")

    async with running(router, exactly_once=True) as worker:
        await send(worker, *range(5))
        await worker.settled()
        assert worker.ledger.done == 5
    assert await serials() == sorted(f"{name}{row}" for name in range(5) for row in "ab")


async def test_a_run_reads_what_it_wrote_and_others_do_not_before_it_returned(router: Router) -> None:
    written, go = asyncio.Event(), asyncio.Event()
    seen: list[bool] = []

    @router.on("t")
    async def store(context: Context[Any]) -> None:
        meter = await Model.create(Meter, serial="a")
        assert await Model.exists(Meter, serial="a")
        assert await Model.find(Meter, meter.id) is not None
        written.set()
        await go.wait()

    @router.on("look")
    async def look(context: Context[Any]) -> None:
        seen.append(await Model.exists(Meter, serial="a"))

    async with running(router, exactly_once=True) as worker:
        await worker.send("t")
        await soon(written.wait())
        await worker.send("look")
        await until(lambda: seen)
        assert not worker.broker.acknowledged
        go.set()
        await worker.settled()
        await worker.send("look")
        await worker.settled()
    assert seen == [False, True]


async def test_writes_are_gathered_without_savepoints_and_reading_begins_nothing(
    router: Router, statements: list[str], database: str
) -> None:
    @router.on("t/<n>")
    async def store(context: Context[Any]) -> None:
        await create(context["params"]["n"])

    @router.on("look/<n>")
    async def look(context: Context[Any]) -> None:
        await Model.find(Meter, 1)

    @router.on("nothing/<n>")
    async def nothing(context: Context[Any]) -> None:
        await asyncio.sleep(0)

    async with running(router, exactly_once=True) as worker:
        await worker.send("nothing/1")
        await worker.settled()
        assert statements == []
        await worker.send("look/1")
        await worker.settled()
        assert statements == ["SELECT"]
        statements.clear()
        await send(worker, *range(100))
        await worker.settled()
        assert "SAVEPOINT" not in statements
        assert statements.count("COMMIT") <= 5
        if database == "postgresql":
            assert statements.count("INSERT") == statements.count("COMMIT")


async def test_without_atomic_each_call_stands_by_itself(router: Router) -> None:
    @router.on("t/<n>", atomic=False)
    async def store(context: Context[Any]) -> None:
        await create(context["params"]["n"])
        raise ValueError("too late")

    async with running(router, exactly_once=True) as worker:
        await send(worker, 1, 2)
        await worker.settled()
        assert worker.ledger.dead_lettered == 2
    assert await serials() == ["1", "2"]


def test_exactly_once_cannot_do_without_atomic(router: Router) -> None:
    with pytest.raises(RouteError, match="atomic=False"):
        router.on("t", delivery="exactly_once", atomic=False)(lambda context: None)


# -- lists -------------------------------------------------------------------------------------------------------------


async def test_of_a_blamed_message_of_a_list_nothing_is_kept(router: Router) -> None:
    @router.on("t/<n>", batch=100, retry=Retry(attempts=2, first=0.01))
    async def store(contexts: list[Context[Any]]) -> None:
        blamed: dict[int, Exception] = {}
        for place, context in enumerate(contexts):
            await create(context["params"]["n"])
            if context["params"]["n"] == "7":
                blamed[place] = ValueError("odd one")
        if blamed:
            raise BatchError(blamed)

    async with running(router, exactly_once=True) as worker:
        await send(worker, *range(20))
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (19, 1)
    assert await serials() == sorted(str(name) for name in range(20) if name != 7)


async def test_a_list_whose_handler_raised_is_halved_and_stores_each_good_row_once(router: Router) -> None:
    @router.on("t/<n>", batch=64)
    async def store(contexts: list[Context[Any]]) -> None:
        for context in contexts:
            await create(context["params"]["n"])
        if any(context["params"]["n"] in {"3", "21"} for context in contexts):
            raise ValueError("one of you")

    async with running(router, exactly_once=True) as worker:
        await send(worker, *range(30))
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (28, 2)
    assert await serials() == sorted(str(name) for name in range(30) if name not in {3, 21})


async def test_a_list_that_blames_nobody_ends(router: Router) -> None:
    @router.on("t/<n>", batch=64)
    async def store(contexts: list[Context[Any]]) -> None:
        for context in contexts:
            await create(context["params"]["n"])
        raise BatchError({})

    async with running(router, exactly_once=True) as worker:
        await send(worker, 1, 2, 3)
        await worker.settled()
        assert worker.ledger.dead_lettered == 3
    assert await serials() == []


# -- sessions and transactions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_sessions_and_transactions_are_part_of_the_run(
    router: Router, delivery: Literal["at_least_once", "exactly_once"]
) -> None:
    @router.on("t/<n>", delivery=delivery)
    async def store(context: Context[Any]) -> None:
        name = context["params"]["n"]
        async with Model.session() as session:
            session.add(Meter(serial=f"{name} session"))
            await session.commit()
            session.add(Meter(serial=f"{name} not committed"))
        async with Model.transaction():
            await create(f"{name} transaction")
            async with Model.session() as session:
                session.add(Meter(serial=f"{name} session in it"))
                await session.commit()
        with pytest.raises(ValueError, match="undone"):
            async with Model.transaction():
                await create(f"{name} undone")
                raise ValueError("undone")
        await Model.create_many(Meter, [{"serial": f"{name} many"}], returning=False)
        await create(f"{name} create")
        if name == "bad":
            raise ValueError("too late")

    async with running(router, exactly_once=True) as worker:
        await send(worker, "a", "bad", "b")
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (2, 1)
    kept = ("create", "many", "session", "session in it", "transaction")
    assert await serials() == sorted(f"{name} {row}" for name in "ab" for row in kept)


async def test_a_transaction_after_a_write_is_part_of_the_run_too(router: Router) -> None:
    @router.on("t/<n>")
    async def store(context: Context[Any]) -> None:
        name = context["params"]["n"]
        await create(f"{name} create")
        async with Model.transaction():
            await create(f"{name} transaction")
        if name == "bad":
            raise ValueError("too late")

    async with running(router, exactly_once=True) as worker:
        await send(worker, "a", "bad", "b")
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (2, 1)
    assert await serials() == ["a create", "a transaction", "b create", "b transaction"]


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_a_session_within_a_session_is_a_savepoint_of_it(
    router: Router, delivery: Literal["at_least_once", "exactly_once"]
) -> None:
    @router.on("t", delivery=delivery, timeout=5)
    async def store(context: Context[Any]) -> None:
        async with Model.session() as outer:
            outer.add(Meter(serial="outer"))
            await outer.flush()
            async with Model.session() as inner:
                inner.add(Meter(serial="inner"))
                await inner.commit()
            await outer.commit()

    async with running(router, exactly_once=True) as worker:
        await worker.send("t")
        await worker.settled()
        assert worker.ledger.done == 1
    assert await serials() == ["inner", "outer"]


async def test_a_session_that_only_reads_holds_nothing_after_it_is_closed(router: Router) -> None:
    read, go = asyncio.Event(), asyncio.Event()

    @router.on("look")
    async def look(context: Context[Any]) -> None:
        async with Model.session() as session:
            await session.execute(text("SELECT 1"))
        read.set()
        await go.wait()

    @router.on("t/<n>")
    async def store(context: Context[Any]) -> None:
        await create(context["params"]["n"])

    async with running(router, exactly_once=True) as worker:
        await worker.send("look")
        await soon(read.wait())
        await send(worker, "a")
        await until(lambda: worker.ledger.done == 1)
        go.set()
        await worker.settled()
    assert await serials() == ["a"]


async def test_in_memory_a_read_waits_for_the_only_connection(router: Router) -> None:
    Model.configure("sqlite+aiosqlite://")
    await configured().create_tables(Plain.metadata, metadata)
    written = asyncio.Event()
    seen: list[int] = []

    @router.on("t/<n>")
    async def store(context: Context[Any]) -> None:
        await create("a")
        written.set()
        await asyncio.sleep(0.1)
        await create("b")

    @router.on("look")
    async def look(context: Context[Any]) -> None:
        seen.append(await Model.count(Meter))

    async with running(router, exactly_once=True) as worker:
        await send(worker, 1)
        await soon(written.wait())
        await worker.send("look")
        await worker.settled()
        assert worker.ledger.done == 2
    assert seen == [2]
    assert await serials() == ["a", "b"]


# -- what is slow ------------------------------------------------------------------------------------------------------


async def test_a_handler_that_is_slow_before_it_writes_holds_nobody(router: Router) -> None:
    go = asyncio.Event()

    @router.on("t/<n>")
    async def store(context: Context[Any]) -> None:
        if context["params"]["n"] == "slow":
            await go.wait()
        await create(context["params"]["n"])

    async with running(router, exactly_once=True) as worker:
        await send(worker, "slow", *range(20))
        await until(lambda: worker.ledger.done == 20)
        assert len(await serials()) == 20
        go.set()
        await worker.settled()
        assert worker.ledger.done == 21
    assert len(await serials()) == 21


async def test_a_handler_that_is_slow_after_it_wrote_holds_those_of_its_round_once(router: Router, database: str) -> None:
    if database == "sqlite":
        pytest.skip("whoever wrote to SQLite holds its only writer")
    written, go = asyncio.Event(), asyncio.Event()

    @router.on("slow/<n>")
    async def slow(context: Context[Any]) -> None:
        await create(f"slow {context['params']['n']}")
        written.set()
        await go.wait()

    @router.on("t/<n>")
    async def store(context: Context[Any]) -> None:
        await create(context["params"]["n"])

    async with running(router, exactly_once=True) as worker:
        await worker.send("slow/1")
        await send(worker, "with it")
        await soon(written.wait())
        # Whoever comes later has another round.
        await send(worker, *range(10))
        await until(lambda: worker.ledger.done >= 10)
        go.set()
        await worker.settled()
        # From now on the slow one has transactions of its own.
        written.clear()
        go.clear()
        await worker.send("slow/2")
        await send(worker, "beside it")
        await soon(written.wait())
        await until(lambda: worker.ledger.done == 13)
        go.set()
        await worker.settled()
        assert worker.ledger.done == 14
    assert len(await serials()) == 14


async def test_a_route_that_is_quick_again_shares_transactions_again(
    router: Router, statements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "QUICK_RUNS", 10)
    pause = 0.2

    @router.on("t/<n>")
    async def store(context: Context[Any]) -> None:
        await create(context["params"]["n"])
        if pause:
            await asyncio.sleep(pause)

    async with running(router, exactly_once=True) as worker:
        await send(worker, "slow")
        await worker.settled()
        pause = 0
        await send(worker, *range(10))
        await worker.settled()
        assert statements.count("COMMIT") == 11
        await send(worker, *range(10, 60))
        await worker.settled()
        assert statements.count("COMMIT") <= 14
    assert len(await serials()) == 61


async def test_two_handlers_that_wait_for_each_others_message_both_end(router: Router) -> None:
    both = asyncio.Barrier(2)

    @router.on("t/<n>", timeout=20)
    async def store(context: Context[Any]) -> None:
        await both.wait()
        await create(context["params"]["n"])
        await both.wait()

    async with running(router, exactly_once=True) as worker:
        await send(worker, "a", "b")
        await worker.settled()
        assert worker.ledger.done == 2
    assert await serials() == ["a", "b"]


async def test_a_handler_that_waits_for_the_commit_of_one_in_its_round_runs_again_alone(
    router: Router, database: str
) -> None:
    if database == "sqlite":
        pytest.skip("whoever wrote to SQLite holds its only writer")
    attempts: list[int] = []

    @router.on("waits", timeout=1)
    async def waits(context: Context[Any]) -> None:
        attempts.append(context["attempt"])
        await create("waits")
        while "other" not in await committed():
            await asyncio.sleep(0.02)

    @router.on("other")
    async def other(context: Context[Any]) -> None:
        await create("other")

    async with running(router, exactly_once=True) as worker:
        await worker.send("waits")
        await worker.send("other")
        await worker.settled()
        assert worker.ledger.done == 2
    # The framework brought them together, so that the first run is no attempt of the message.
    assert attempts == [1, 1]
    assert await serials() == ["other", "waits"]


async def test_who_waits_for_a_transaction_to_begin_is_not_cut_off(router: Router, database: str) -> None:
    if database == "postgresql":
        pytest.skip("on PostgreSQL transactions go side by side")
    written = asyncio.Event()

    @router.on("holds", timeout=20)
    async def holds(context: Context[Any]) -> None:
        await create("holds")
        written.set()
        await asyncio.sleep(1)

    @router.on("t", timeout=0.2)
    async def store(context: Context[Any]) -> None:
        await create("waits")

    async with running(router, exactly_once=True) as worker:
        await worker.send("holds")
        await soon(written.wait())
        await worker.send("t")
        await worker.settled()
        assert worker.ledger.done == 2
    assert await serials() == ["holds", "waits"]


async def test_a_stop_that_cuts_runs_off_undoes_them_and_frees_the_database(router: Router) -> None:
    written = asyncio.Event()

    @router.on("t/<n>")
    async def store(context: Context[Any]) -> None:
        await create(context["params"]["n"])
        written.set()
        await asyncio.sleep(60)

    async with running(router, exactly_once=True) as worker:
        await send(worker, "a")
        await soon(written.wait())
        await worker.stop(0)
        assert worker.ledger.abandoned == 1
    await soon(create("b"), 5)
    assert await serials() == ["b"]


# -- what leaves -------------------------------------------------------------------------------------------------------


async def test_a_reply_leaves_after_the_commit_and_what_is_published_at_once(router: Router) -> None:
    answered: list[list[str]] = []

    @router.on("t/<n>", reply="answers/<n>")
    async def store(context: Context[Any]) -> dict[str, str]:
        await create(context["params"]["n"])
        await context["publish"]("heard", context["params"]["n"])
        return {"stored": context["params"]["n"]}

    async with running(router, exactly_once=True) as worker:
        sent = worker.publisher.send

        async def look(publication: Publication) -> None:
            answered.append([publication.topic, *await committed()])
            await sent(publication)

        worker.publisher.send = look  # type: ignore[method-assign]
        await send(worker, "a")
        await worker.settled()
        assert worker.ledger.done == 1
    assert answered == [["heard"], ["answers/a", "a"]]


async def test_a_reply_that_cannot_be_encoded_undoes_the_run(router: Router) -> None:
    @router.on("t/<n>", reply="answers/<n>")
    async def store(context: Context[Any]) -> object:
        await create(context["params"]["n"])
        return object()

    async with running(router, exactly_once=True) as worker:
        await send(worker, "a")
        await worker.settled()
        assert worker.ledger.dead_lettered == 1
    assert await serials() == []


# -- what the database says late ---------------------------------------------------------------------------------------


async def test_a_constraint_that_is_checked_at_the_commit_costs_the_guilty_message_alone(
    router: Router, database: str
) -> None:
    if database == "sqlite":
        pytest.skip("SQLite checks no unique constraint at the commit")
    async with configured().begin() as connection:
        await connection.execute(text("ALTER TABLE meters ADD CONSTRAINT late UNIQUE (site) DEFERRABLE INITIALLY DEFERRED"))

    @router.on("t/<n>")
    async def store(context: Context[Any]) -> None:
        name = context["params"]["n"]
        await Model.create(Meter, serial=name, site="taken" if name == "bad" else name)

    await Model.create(Meter, serial="first", site="taken")
    async with running(router, exactly_once=True) as worker:
        await send(worker, *range(10), "bad")
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (10, 1)
    assert await serials() == sorted(["first", *map(str, range(10))])


async def test_a_connection_that_is_lost_in_a_transaction_is_waited_out(router: Router, database: str) -> None:
    if database == "sqlite":
        pytest.skip("SQLite has no server")
    runs: Counter[str] = Counter()

    @router.on("t/<n>")
    async def store(context: Context[Any]) -> None:
        name = context["params"]["n"]
        runs[name] += 1
        await create(f"{name}a")
        if name == "cut" and runs[name] == 1:
            async with configured().session() as session:
                idle = "state LIKE 'idle in transaction%' AND datname = current_database() AND pid <> pg_backend_pid()"
                await session.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {idle}"))
        await create(f"{name}b")

    async with running(router, exactly_once=True) as worker:
        await send(worker, "cut", *range(10))
        await worker.settled()
        assert worker.ledger.done == 11
    assert await serials() == sorted(f"{name}{row}" for name in ["cut", *range(10)] for row in "ab")


async def test_what_is_undone_runs_in_peace_from_newcomers_that_fail(router: Router) -> None:
    runs: Counter[str] = Counter()

    @router.on("t/<n>", order_by=None)
    async def store(context: Context[Any]) -> None:
        name = context["params"]["n"]
        runs[name] += 1
        await create(f"{name}a")
        await create(f"{name}b")
        if name.startswith("bad"):
            raise ValueError("after two writes")

    async with running(router, exactly_once=True) as worker:
        for number in range(60):
            await send(worker, f"bad{number}", number)
            await asyncio.sleep(0)
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (60, 60)
    assert await serials() == sorted(f"{number}{row}" for number in range(60) for row in "ab")
    assert max(runs.values()) <= 2


async def test_a_retry_has_a_transaction_of_its_own(router: Router) -> None:
    runs: Counter[str] = Counter()

    @router.on("t/<n>", retry=Retry(attempts=5, first=0.01))
    async def store(context: Context[Any]) -> None:
        name = context["params"]["n"]
        runs[name] += 1
        await create(name)
        if name == "bad":
            raise OSError("again and again")
        await asyncio.sleep(0.01)

    async with running(router, exactly_once=True) as worker:
        await send(worker, "bad", *range(5))
        await until(lambda: worker.ledger.dead_lettered == 1)
        await worker.settled()
        assert worker.ledger.done == 5
    assert runs["bad"] == 5
    assert await serials() == [str(number) for number in range(5)]
    # Undone with the first run of the bad one at most.
    assert max(runs[str(number)] for number in range(5)) <= 2


# -- all of it together ------------------------------------------------------------------------------------------------

KINDS = ("create", "create", "create", "many", "caught", "transaction", "undone block", "session", "read", "sleep")


async def step(kind: str, serial: str) -> list[str]:
    """Do something of ``kind``. Return the serials of the rows that belong to the run from then on."""
    match kind:
        case "create":
            await create(serial)
        case "many":
            await Model.create_many(Meter, [{"serial": serial}, {"serial": f"{serial} too"}])
            return [serial, f"{serial} too"]
        case "caught":
            with pytest.raises(IntegrityError):
                await create(None)
            return []
        case "transaction":
            async with Model.transaction():
                await create(serial)
        case "undone block":
            with pytest.raises(ZeroDivisionError):
                async with Model.transaction():
                    await create(serial)
                    raise ZeroDivisionError
            return []
        case "session":
            async with Model.session() as session:
                session.add(Meter(serial=serial))
                await session.commit()
                session.add(Meter(serial=f"{serial} not committed"))
                await session.flush()
        case "read":
            assert await Model.count(Meter, serial=serial) == 0
            return []
        case "sleep":
            await asyncio.sleep(0.01)
            return []
    return [serial]


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_handlers_do_a_message_that_is_done_has_its_rows_once_and_no_other_has_any(
    router: Router, seed: int
) -> None:
    rng = random.Random(seed)
    plans = {str(name): (rng.choices(KINDS, k=rng.randint(0, 4)), rng.random()) for name in range(150)}
    expected: dict[str, list[str]] = {}

    @router.on("t/<lane>", retry=Retry(attempts=2, first=0.01), timeout=2)
    async def store(context: Context[Any]) -> None:
        name = str(context["payload"])
        kinds, fate = plans[name]
        rows: list[str] = []
        for number, kind in enumerate(kinds):
            rows += await step(kind, f"{name}.{number}")
        # Some fail once, some always, a few hang.
        if fate < 0.1 and context["attempt"] == 1:
            raise OSError("once")
        if 0.1 <= fate < 0.2:
            raise OSError("always")
        if 0.2 <= fate < 0.21:
            await asyncio.sleep(60)
        expected[name] = rows

    async with running(router, exactly_once=True) as worker:
        for name in plans:
            await worker.send(f"t/{rng.randrange(60)}", name.encode())
            if rng.random() < 0.1:
                await asyncio.sleep(0.005)
        await until(lambda: worker.ledger.in_hand == 0, 60)
        failed = sum(0.1 <= fate < 0.21 for _, fate in plans.values())
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (150 - failed, failed)
    assert await serials() == sorted(row for rows in expected.values() for row in rows)
