"""delivery="exactly_once": one transaction for what waits, with the record of its packets, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from core.context import Context
from core.database.current import configured
from core.errors import BatchError, DatabaseUnreachableError, Reject, RouteError
from core.handling.failures import outage, outcome
from core.model import Model
from core.mqtt.message import Message
from core.records import dedup as dedup_module
from core.records.packets import MAX_UNDER_WAY, Packets, digest
from core.records.tables import metadata
from core.retry import Retry
from core.route import Dedup
from core.router import Router
from core.session.session import Session
from tests.database.conftest import url_of
from tests.support.memory_worker import running
from tests.support.models import Meter, Plain
from tests.support.waiting import until

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


@pytest.fixture(params=["sqlite", "postgresql"], autouse=True)
async def database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.005)
    Model.configure(url_of(request.param, tmp_path))
    await configured().create_tables(Plain.metadata, metadata)
    yield request.param
    await Model.close()


@pytest.fixture
def router() -> Router:
    return Router()


def storing(router: Router, dedup: str | None = None) -> None:
    @router.on("t/<n>", delivery="exactly_once", dedup=dedup)
    async def store(context: Context[Any]) -> None:
        await Model.create(Meter, serial=str(context["payload"]))


async def serials() -> set[str]:
    return {str(meter.serial) for meter in await Model.all(Meter)}


async def count(table: str) -> int:
    async with Model.session() as session:
        return int((await session.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())


async def test_what_waits_is_one_transaction_with_its_record(router: Router) -> None:
    storing(router)
    async with running(router, exactly_once=True) as worker:
        for number in range(200):
            await worker.send(f"t/{number % 7}", b"%d" % number)
        await worker.settled()
        assert worker.ledger.done == 200
        assert len(worker.broker.acknowledged) == 200
    assert await serials() == {str(number) for number in range(200)}
    assert 1 <= await count("routemq_processed") <= 10


async def test_nothing_is_acknowledged_before_the_commit(router: Router) -> None:
    go = asyncio.Event()

    @router.on("t/<n>", delivery="exactly_once")
    async def store(context: Context[Any]) -> None:
        await Model.create(Meter, serial=context["params"]["n"])
        if context["params"]["n"] == "slow":
            await go.wait()

    async with running(router, exactly_once=True) as worker:
        await worker.send("t/a")
        await worker.send("t/slow")
        await asyncio.sleep(0.1)
        assert list(worker.broker.acknowledged) in ([], [1])
        go.set()
        await worker.settled()
        assert len(worker.broker.acknowledged) == 2


async def test_a_guilty_message_costs_the_others_nothing(router: Router) -> None:
    runs: list[int] = []

    @router.on("t/<n>", delivery="exactly_once", retry=Retry(attempts=2, first=0.01))
    async def store(context: Context[Any]) -> None:
        runs.append(context["payload"])
        await Model.create(Meter, serial=str(context["payload"]))
        if context["payload"] == 13:
            raise ValueError("unlucky")
        if context["payload"] == 17:
            raise Reject("no primes")

    async with running(router, exactly_once=True) as worker:
        for number in range(40):
            await worker.send(f"t/{number % 10}", b"%d" % number)
        await worker.send("t/1", b"nonsense")
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (38, 3)
    assert await serials() == {str(number) for number in range(40)} - {"13", "17"}
    assert await count("routemq_dead_letters") == 3


async def test_a_constraint_violated_in_a_gather_blames_its_caller_alone(router: Router) -> None:
    @router.on("t/<n>", delivery="exactly_once", retry=Retry(attempts=1))
    async def store(context: Context[Any]) -> None:
        await Model.create(Meter, serial=str(context["payload"]))

    async with running(router, exactly_once=True) as worker:
        for number in (1, 2, 3, 2, 4):
            await worker.send(f"t/{number}", b"%d" % number)
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (4, 1)
    assert await serials() == {"1", "2", "3", "4"}


async def test_a_handler_may_catch_the_error_of_its_call_and_go_on(router: Router) -> None:
    @router.on("t/<n>", delivery="exactly_once")
    async def store(context: Context[Any]) -> None:
        try:
            await Model.create(Meter, serial="same")
        except IntegrityError:
            await Model.create(Meter, serial=f"other {context['payload']}")

    async with running(router, exactly_once=True) as worker:
        for number in range(5):
            await worker.send(f"t/{number}", b"%d" % number)
        await worker.settled()
        assert worker.ledger.done == 5
    assert len(await serials()) == 5


async def test_sessions_and_transactions_of_a_handler_are_parts_of_the_unit(router: Router) -> None:
    fail = [True]

    @router.on("t/<n>", delivery="exactly_once", retry=Retry(attempts=2, first=0.01))
    async def store(context: Context[Any]) -> None:
        name = context["params"]["n"]
        session = await Model.get_session()
        session.add(Meter(serial=f"{name} by session"))
        await session.commit()
        session.add(Meter(serial=f"{name} rolled back"))
        await session.rollback()
        # While the session is open, what Model's calls write belongs to it.
        assert (await Model.create(Meter, serial=f"{name} beside")).id
        await session.commit()
        assert (await Model.create(Meter, serial=f"{name} taken back")).id
        await session.close()
        async with Model.transaction():
            meter = await Model.create(Meter, serial=f"{name} in transaction")
            await Model.update(Meter, meter.id, kwh=5.0)
        async with Model.session() as session:
            session.add(Meter(serial=f"{name} left open"))
            assert (await session.scalars(select(Meter.serial).where(Meter.serial == f"{name} in transaction"))).one()
        if name == "b" and fail.pop() if fail else False:
            raise ValueError("once")

    async with running(router, exactly_once=True) as worker:
        for name in "abc":
            await worker.send(f"t/{name}")
        await worker.settled()
        assert worker.ledger.done == 3
    kinds = ("by session", "beside", "in transaction")
    assert await serials() == {f"{name} {kind}" for name in "abc" for kind in kinds}


async def test_a_session_that_a_handler_leaves_open_holds_up_nobody(router: Router) -> None:
    @router.on("t/<n>", delivery="exactly_once")
    async def store(context: Context[Any]) -> None:
        session = await Model.get_session()
        session.add(Meter(serial=context["params"]["n"]))
        await session.commit()

    async with running(router, exactly_once=True) as worker:
        for number in range(20):
            await worker.send(f"t/{number}")
        await worker.settled()
        assert worker.ledger.done == 20
    assert len(await serials()) == 20


async def test_a_handler_that_hangs_costs_itself_alone(router: Router) -> None:
    @router.on("t/<n>", delivery="exactly_once", timeout=1, retry=Retry(attempts=1))
    async def store(context: Context[Any]) -> None:
        await Model.create(Meter, serial=context["params"]["n"])
        if context["params"]["n"] == "3":
            async with Model.session() as session:
                await session.execute(text("SELECT 1"))
                await asyncio.Event().wait()

    async with running(router, exactly_once=True) as worker:
        for number in range(10):
            await worker.send(f"t/{number}")
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (9, 1)
    assert await serials() == {str(number) for number in range(10)} - {"3"}


async def test_messages_of_a_key_stay_in_order_around_one_that_is_tried_again(router: Router) -> None:
    seen: list[str] = []

    @router.on("t/<n>", delivery="exactly_once", retry=Retry(attempts=3, first=0.03, jitter=False))
    async def store(context: Context[Any]) -> None:
        if context["payload"] == 2 and context["attempt"] < 3:
            raise ValueError("later")
        meter = await Model.create(Meter, serial=f"{context['params']['n']}{context['payload']}")
        seen.append(str(meter.serial))

    async with running(router, exactly_once=True) as worker:
        for number in range(6):
            await worker.send("t/a", b"%d" % number)
            await worker.send("t/b", b"%d" % (number + 10))
        await worker.settled()
        assert worker.ledger.done == 12
    rows = [meter.serial for meter in await Model.where(Meter, order_by=Meter.id)]
    assert [serial for serial in rows if serial[0] == "a"] == [f"a{n}" for n in range(6)]
    assert [serial for serial in rows if serial[0] == "b"] == [f"b{n + 10}" for n in range(6)]


async def test_a_redelivery_of_a_committed_message_is_acknowledged_without_running(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker dies after the commit, before its PUBACKs have left."""
    runs: list[int] = []

    @router.on("t/<n>", delivery="exactly_once")
    async def store(context: Context[Any]) -> None:
        runs.append(context["payload"])
        await Model.create(Meter, serial=str(context["payload"]))

    with monkeypatch.context() as mute:
        mute.setattr(Session, "acknowledge", lambda self, messages: None)
        async with running(router, exactly_once=True) as worker:
            broker = worker.broker
            for number in range(10):
                await worker.send(f"t/{number}", b"%d" % number)
            await until(lambda: worker.ledger.done == 10)
        assert list(broker.acknowledged) == []
    again = Router()
    again.on("t/<n>", store, delivery="exactly_once")
    async with running(again, exactly_once=True, broker=broker) as worker:
        await until(lambda: worker.ledger.deduplicated == 10)
        await worker.send("t/11", b"11")
        await worker.settled()
        assert len(broker.acknowledged) == 11
    assert sorted(runs) == [*range(10), 11]
    assert len(await serials()) == 11


@pytest.mark.parametrize("committed", [True, False])
async def test_a_commit_whose_answer_was_lost_is_looked_up(router: Router, committed: bool) -> None:
    storing(router)
    async with running(router, exactly_once=True) as worker:
        begin, lose = worker.exactly_once.begin, [True]

        @asynccontextmanager
        async def losing() -> AsyncIterator[AsyncSession]:
            if lose and not committed:
                async with begin() as session:
                    yield session
                    lose.clear()
                    raise OperationalError("COMMIT", {}, ConnectionError(), connection_invalidated=True)
            else:
                async with begin() as session:
                    yield session
                if lose:
                    lose.clear()
                    raise DatabaseUnreachableError("the answer was lost")

        worker.exactly_once.begin = losing
        for number in range(5):
            await worker.send(f"t/{number}", b"%d" % number)
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (5, 0)
        assert not lose
    assert len(await serials()) == 5


async def test_an_outage_is_waited_out(router: Router) -> None:
    down = [True]

    @router.on("t/<n>", delivery="exactly_once", retry=Retry(attempts=1))
    async def store(context: Context[Any]) -> None:
        if down[0]:
            raise DatabaseUnreachableError("away")
        await Model.create(Meter, serial=context["params"]["n"])

    async with running(router, exactly_once=True) as worker:
        for number in range(20):
            await worker.send(f"t/{number}")
        await asyncio.sleep(0.1)
        down[0] = False
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (20, 0)


async def test_what_handlers_publish_leaves_after_the_commit_and_only_then(router: Router) -> None:
    @router.on("t/<n>", delivery="exactly_once", retry=Retry(attempts=2, first=0.01))
    async def store(context: Context[Any]) -> None:
        await context["publish"](f"answers/{context['params']['n']}", {"n": context["payload"]}, qos=1)
        if context["attempt"] == 1 and context["payload"] == 3:
            raise ValueError("once")
        if context["payload"] == 5:
            raise Reject("never")

    async with running(router, exactly_once=True) as worker:
        for number in range(8):
            await worker.send(f"t/{number % 2}", b"%d" % number)
        await worker.settled()
        await until(lambda: len(worker.broker.published) == 7)
        bodies = {
            topic: [m.body for m in worker.broker.published if m.topic == topic] for topic in ("answers/0", "answers/1")
        }
        assert bodies == {
            "answers/0": [b'{"n":0}', b'{"n":2}', b'{"n":4}', b'{"n":6}'],
            "answers/1": [b'{"n":1}', b'{"n":3}', b'{"n":7}'],
        }

        async def empty() -> bool:
            return await count("routemq_outbox") == 0

        await until(empty)


async def test_an_outbox_that_was_not_sent_is_sent_after_the_next_start(router: Router) -> None:
    @router.on("t/<n>", delivery="exactly_once")
    async def store(context: Context[Any]) -> None:
        await context["publish"]("answer", context["payload"], qos=1)

    async with running(router, exactly_once=True) as worker:
        await worker.exactly_once.outbox.stop()
        for number in range(3):
            await worker.send("t/x", b"%d" % number)
        await worker.settled()
        assert await count("routemq_outbox") == 3
        broker = worker.broker
    again = Router()
    again.on("t/<n>", store, delivery="exactly_once")
    async with running(again, exactly_once=True, broker=broker):
        await until(lambda: [m.body for m in broker.published] == [b"0", b"1", b"2"])


async def test_the_record_is_trimmed_to_what_can_still_come_again() -> None:
    processed = Packets(configured().begin, "c", "b")
    identifiers = 65_535
    numbers = range(0, 3 * identifiers, 1000)
    for start in numbers:
        messages = [Message("t", b"%d" % n, 1, n % identifiers + 1) for n in range(start, start + 1000)]
        assert not any(processed.receive(message) for message in messages)
        async with configured().writing() as session:
            record = await processed.record(session, messages)
            assert record is not None
        processed.committed(record)
    rows = await count("routemq_processed")
    assert MAX_UNDER_WAY // 1000 <= rows <= MAX_UNDER_WAY // 1000 * 1.2 + 3
    loaded = Packets(configured().begin, "c", "b")
    await loaded.load()
    loaded.connected(session_present=True)
    last = numbers[-1]
    for n in (last, last + 999, last - 15_000):
        packet_id = n % identifiers + 1
        assert loaded.receive(Message("t", b"%d" % n, 1, packet_id, dup=True))
        assert not loaded.receive(Message("t", b"another", 1, packet_id, dup=True))
    # It cannot be under way any more.
    old = last - 20_000
    assert not loaded.receive(Message("t", b"%d" % old, 1, old % identifiers + 1, dup=True))
    loaded.connected(session_present=False)
    assert not loaded.receive(Message("t", b"%d" % last, 1, last % identifiers + 1, dup=True))
    assert len(digest(Message("t", b""))) == 8


@pytest.mark.parametrize(
    "options",
    [
        {"delivery": "exactly_once", "qos": 0},
        {"dedup": "id"},
        {"delivery": "exactly_once", "dedup": "id", "batch": 5},
        {"delivery": "exactly_once", "dedup": ""},
        {"delivery": "exactly_once", "dedup": 5},
    ],
)
def test_what_does_not_go_together_is_refused(router: Router, options: dict[str, Any]) -> None:
    with pytest.raises(RouteError, match=r"exactly_once|dedup"):
        router.on("t", lambda context: None, **options)


async def test_a_list_is_one_transaction(router: Router) -> None:
    lists: list[int] = []

    @router.on("t/<n>", delivery="exactly_once", batch=50, retry=Retry(attempts=1))
    async def ingest(contexts: list[Context[Any]]) -> None:
        lists.append(len(contexts))
        await Model.create_many(Meter, [{"serial": str(context["payload"])} for context in contexts], returning=False)
        for context in contexts:
            await context["publish"](f"answers/{context['payload']}", b"x", qos=1)
        if any(context["payload"] == 33 for context in contexts):
            raise ValueError("one of you")

    async with running(router, exactly_once=True) as worker:
        for number in range(100):
            await worker.send(f"t/{number % 7}", b"%d" % number)
        await worker.send("t/1", b"nonsense")
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (99, 2)
        await until(lambda: len(worker.broker.published) == 99)
    assert await serials() == {str(number) for number in range(100)} - {"33"}
    assert max(lists) == 50


async def test_blamed_messages_of_a_list_cost_the_others_nothing(router: Router) -> None:
    @router.on("t/<n>", delivery="exactly_once", batch=50, retry=Retry(attempts=2, first=0.01))
    async def ingest(contexts: list[Context[Any]]) -> None:
        bad = {place: ValueError("odd") for place, context in enumerate(contexts) if context["payload"] % 10 == 3}
        good = [{"serial": str(context["payload"])} for place, context in enumerate(contexts) if place not in bad]
        await Model.create_many(Meter, good)
        if bad:
            raise BatchError(bad)

    async with running(router, exactly_once=True) as worker:
        for number in range(40):
            await worker.send(f"t/{number % 7}", b"%d" % number)
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (36, 4)
    assert await serials() == {str(number) for number in range(40) if number % 10 != 3}


class LostError(Exception):
    """What a driver raises where a transaction lost against another one."""

    sqlstate = "40001"


def lost() -> OperationalError:
    return OperationalError("INSERT", {}, LostError("could not serialize access"))


async def test_of_a_list_that_always_loses_only_one_is_to_blame(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "MAX_AGAIN", 7)
    alone = 0

    @router.on("t/<n>", delivery="exactly_once", batch=20, retry=Retry(attempts=1))
    async def ingest(contexts: list[Context[Any]]) -> None:
        nonlocal alone
        await Model.create_many(Meter, [{"serial": str(context["payload"])} for context in contexts])
        if any(context["payload"] == 7 for context in contexts):
            alone += len(contexts) == 1
            raise lost()

    async with running(router, exactly_once=True) as worker:
        for number in range(20):
            await worker.send(f"t/{number % 3}", b"%d" % number)
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (19, 1)
    assert await serials() == {str(number) for number in range(20)} - {"7"}
    # It has all of its own runs, whatever it lost together with others.
    assert alone >= 7


@pytest.mark.parametrize("loser", [0, 5])
async def test_a_message_that_loses_beside_others_is_not_to_blame(
    router: Router, monkeypatch: pytest.MonkeyPatch, loser: int
) -> None:
    """Who is told of a deadlock is one of those who are in it."""
    monkeypatch.setattr(outcome, "MAX_AGAIN", 7)
    under_way = 0

    @router.on("t/<n>", delivery="exactly_once", retry=Retry(attempts=1))
    async def store(context: Context[Any]) -> None:
        nonlocal under_way
        under_way += 1
        try:
            await Model.create(Meter, serial=str(context["payload"]))
            await asyncio.sleep(0.01)
            if context["payload"] == loser and under_way > 1:
                raise lost()
        finally:
            under_way -= 1

    async with running(router, exactly_once=True) as worker:
        for number in range(10):
            await worker.send(f"t/{number}", b"%d" % number)
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (10, 0)
    assert await serials() == {str(number) for number in range(10)}


@pytest.mark.parametrize("key", ["meta.id", lambda context: context["payload"]["meta"]["id"]])
async def test_a_message_that_a_device_sends_twice_is_handled_once(router: Router, key: Dedup) -> None:
    @router.on("t/<n>", delivery="exactly_once", dedup=key, retry=Retry(attempts=2, first=0.01), name="things")
    async def store(context: Context[Any]) -> None:
        number = context["payload"]["meta"]["id"]
        if number == 4 and context["attempt"] == 1:
            raise ValueError("once")
        await Model.create(Meter, serial=str(number))

    async with running(router, exactly_once=True) as worker:
        for number in (1, 2, 1, 3, 4, 4, 2, 1):
            await worker.send(f"t/{number}", b'{"meta": {"id": %d}}' % number)
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.deduplicated) == (4, 4)
        await worker.send("t/1", b'{"meta": {"id": 1}}')
        await worker.settled()
        assert worker.ledger.deduplicated == 5
    assert await serials() == {"1", "2", "3", "4"}
    assert await count("routemq_dedup") == 4


async def test_a_message_without_its_key_is_a_dead_letter(router: Router) -> None:
    storing(router, dedup="id")
    async with running(router, exactly_once=True) as worker:
        await worker.send("t/1", b'{"id": null}')
        await worker.send("t/1", b"5")
        await worker.settled()
        assert worker.ledger.dead_lettered == 2


async def test_keys_are_kept_for_as_long_as_is_said(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup_module, "TRIM_EVERY", 0)

    @router.on("t/<n>", delivery="exactly_once", dedup="id")
    async def store(context: Context[Any]) -> None:
        pass

    async with running(router, exactly_once=True) as worker:
        worker.exactly_once.trim = dedup_module.Trim(0.2)
        await worker.send("t/1", b'{"id": 1}')
        await worker.settled()
        await asyncio.sleep(0.3)
        await worker.send("t/1", b'{"id": 2}')
        await worker.settled()
        assert await count("routemq_dedup") == 1
        await worker.send("t/1", b'{"id": 1}')
        await worker.settled()
        assert worker.ledger.done == 3


async def test_the_lists_of_a_route_run_one_after_the_other(router: Router) -> None:
    lists: list[list[int]] = []
    under_way = [0]

    @router.on("t/<n>", delivery="exactly_once", batch=8)
    async def ingest(contexts: list[Context[Any]]) -> None:
        under_way[0] += 1
        assert under_way[0] == 1
        numbers = [context["payload"] for context in contexts]
        lists.append(numbers)
        # The first lists are the slowest ones.
        await asyncio.sleep(0.1 / (1 + numbers[0]))
        for context in contexts:
            await Model.create(Meter, serial=f"{context['params']['n']} {context['payload']}")
        under_way[0] -= 1

    async with running(router, exactly_once=True) as worker:
        for number in range(60):
            await worker.send(f"t/{number % 2}", b"%d" % number)
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (60, 0)
    # Several lists shared a transaction.
    assert await count("routemq_processed") < len(lists)
    rows = [str(meter.serial).split() for meter in await Model.where(Meter, order_by=Meter.id)]
    for topic in "01":
        assert [int(n) for t, n in rows if t == topic] == list(range(int(topic), 60, 2))


async def test_lists_of_different_routes_share_a_transaction_side_by_side(router: Router) -> None:
    both = asyncio.Barrier(2)

    async def ingest(contexts: list[Context[Any]]) -> None:
        if any(context["payload"] == 9 for context in contexts):
            async with asyncio.timeout(5):
                await both.wait()
        await Model.create_many(Meter, [{"serial": str(context["topic"])} for context in contexts])

    router.on("first/<n>", ingest, delivery="exactly_once", batch=20, name="first")
    router.on("second/<n>", ingest, delivery="exactly_once", batch=20, name="second")
    async with running(router, exactly_once=True) as worker:
        await worker.send("first/0", b"0")
        await worker.send("first/9", b"9")
        await worker.send("second/9", b"9")
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (3, 0)


async def test_a_list_that_follows_one_that_fails_is_not_to_blame(router: Router) -> None:
    """What the first list is to write is missed by the second one, as long as the first one fails."""

    @router.on("t/<n>", delivery="exactly_once", batch=1, order_by=None, retry=Retry(attempts=2, first=0.01))
    async def ingest(contexts: list[Context[Any]]) -> None:
        (context,) = contexts
        if context["payload"] == 1 and context["attempt"] == 1:
            raise ValueError("once")
        if context["payload"] == 2 and not await Model.exists(Meter, serial="0"):
            raise Reject("the meter is not known")
        await Model.create(Meter, serial=str(context["payload"]))

    async with running(router, exactly_once=True) as worker:
        for number in range(3):
            await worker.send("t/x", b"%d" % number)
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (3, 0)


async def test_a_list_that_blames_nobody_is_halved(router: Router) -> None:
    @router.on("t/<n>", delivery="exactly_once", batch=8)
    async def ingest(contexts: list[Context[Any]]) -> None:
        await Model.create_many(Meter, [{"serial": str(context["payload"])} for context in contexts])
        if any(context["payload"] == 3 for context in contexts):
            raise BatchError({len(contexts): ValueError("one too far")})

    async with running(router, exactly_once=True) as worker:
        for number in range(8):
            await worker.send("t/x", b"%d" % number)
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (7, 1)
    assert await serials() == {str(number) for number in range(8)} - {"3"}
