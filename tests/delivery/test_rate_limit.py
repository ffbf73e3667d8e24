"""Rate limits: the excess of each kind, what counts as one message, and how much is remembered."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

import pytest

from core import rate_limit
from core.context import Context
from core.database.current import configured
from core.errors import CounterUnreachableError, DatabaseUnreachableError, NotYet, RouteError, StartError
from core.handling.failures import outage
from core.model import Model
from core.rate_limit import RateLimit
from core.rate_limit import windows as windows_module
from core.rate_limit.counters import counters
from core.rate_limit.limit import Excess
from core.rate_limit.parse import parse
from core.rate_limit.windows import Windows
from core.records.tables import metadata
from core.retry import Retry
from core.router import Router
from core.testing import TestClient
from tests.database.conftest import url_of
from tests.support.memory_worker import MemoryWorker, running
from tests.support.models import Meter, Plain

if TYPE_CHECKING:
    from limits import RateLimitItem


@pytest.fixture
def router() -> Router:
    return Router()


def noting(router: Router, limit: RateLimit) -> list[tuple[str, Any]]:
    seen: list[tuple[str, Any]] = []

    @router.on("t/<device_id>", middleware=[limit])
    async def handle(context: Context[Any]) -> None:
        seen.append((context["params"]["device_id"], context["payload"]))

    return seen


async def send(worker: MemoryWorker, *topics: str) -> None:
    for number, topic in enumerate(topics):
        await worker.send(topic, b"%d" % number)
    await worker.settled()


async def test_the_excess_is_a_dead_letter_that_says_why(router: Router) -> None:
    seen = noting(router, RateLimit("2/minute", key="device_id"))
    async with running(router) as worker:
        await send(worker, "t/a", "t/a", "t/a", "t/b")
        assert sorted(seen) == [("a", 0), ("a", 1), ("b", 3)]
        (letter,) = worker.dead_letters.letters
        assert (letter.topic, letter.body) == ("t/a", b"2")
        assert letter.reason == "MessageError: more than 2 per 1 minute for device_id='a'"
        assert letter.attempts == 1


async def test_the_excess_is_dropped_and_counted(router: Router) -> None:
    seen = noting(router, RateLimit("2/minute", excess="drop"))
    async with running(router) as worker:
        await send(worker, *(f"t/{number}" for number in range(5)))
        assert len(seen) == 2
        assert (worker.ledger.done, worker.ledger.dropped) == (2, 3)
        assert worker.dead_letters.letters == []


async def test_the_excess_waits_in_order_and_holds_nobody_else_up(router: Router) -> None:
    seen = noting(router, RateLimit("5/second", key="device_id", excess="wait"))
    began = monotonic()
    async with running(router) as worker:
        await send(worker, *["t/a"] * 8, "t/b")
        assert 1.0 <= monotonic() - began < 3
        assert [number for device, number in seen if device == "a"] == list(range(8))
        # The other device's message did not wait for those.
        assert seen.index(("b", 8)) == 5
        assert worker.ledger.done == 9
        assert worker.dead_letters.letters == []


async def test_many_that_wait_come_back_at_the_pace_of_the_limit(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = RateLimit("20/second", excess="wait")
    seen = noting(router, limit)
    asked = 0
    take = limit.counts.windows.take

    def counting(key: str) -> float:
        nonlocal asked
        asked += 1
        return take(key)

    monkeypatch.setattr(limit.counts.windows, "take", counting)
    began = monotonic()
    async with running(router) as worker:
        await send(worker, *(f"t/{number}" for number in range(50)))
        assert 1.5 <= monotonic() - began < 4
        assert sorted(number for _, number in seen) == list(range(50))
    assert asked < 100
    assert not limit.counts.waiting
    assert not limit.counts.counted


async def test_a_key_can_be_a_function_and_its_failure_costs_one_message(router: Router) -> None:
    seen = noting(router, RateLimit("1/minute", key=lambda context: context["payload"]["site"], excess="drop"))
    async with running(router) as worker:
        for body in (b'{"site": 1}', b'{"site": 1}', b'{"site": "' + b"x" * 1000 + b'"}', b"{}"):
            await worker.send("t/a", body)
        await worker.settled()
        assert [payload["site"] for _, payload in seen] == [1, "x" * 1000]
        assert (worker.ledger.dropped, worker.ledger.dead_lettered) == (1, 1)


async def test_routes_that_share_a_limit_share_its_counts(router: Router) -> None:
    async def handle(context: Context[Any]) -> None:
        pass

    shared = RateLimit("3/minute", key="id", excess="drop")
    with router.group("g/<id>", middleware=[shared]) as group:
        group.on("a", handle)
        group.on("b", handle)
    router.on("apart/<id>", handle, middleware=[RateLimit("3/minute", key="id", excess="drop")])
    async with running(router) as worker:
        await send(worker, "g/1/a", "g/1/b", "g/1/a", "g/1/b", "g/2/b", "apart/1")
        assert (worker.ledger.done, worker.ledger.dropped) == (5, 1)


async def test_a_retry_and_an_outage_do_not_count_again(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.001)
    errors = [ValueError("once"), DatabaseUnreachableError("away"), DatabaseUnreachableError("away")]
    limit = RateLimit("2/minute")

    @router.on("t", middleware=[limit])
    async def handle(context: Context[Any]) -> None:
        if errors:
            raise errors.pop(0)

    async with running(router, retry=Retry(attempts=2, first=0.001)) as worker:
        await send(worker, "t", "t", "t")
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (2, 1)
    assert not limit.counts.counted


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[None]:
    Model.configure(url_of("sqlite", tmp_path))
    await configured().create_tables(Plain.metadata, metadata)
    yield
    await Model.close()


@pytest.mark.parametrize("excess", ["dead_letter", "drop", "wait"])
async def test_a_batch_that_runs_again_counts_once_in_exactly_once_routes(
    router: Router, database: None, excess: Excess
) -> None:
    runs = 0

    @router.on("t/<n>", delivery="exactly_once", middleware=[RateLimit("4/second", excess=excess)])
    async def store(context: Context[Any]) -> None:
        nonlocal runs
        runs += 1
        await Model.create(Meter, serial=context["params"]["n"])
        if context["params"]["n"] == "bad":
            raise ValueError("bad")

    async with running(router, exactly_once=True) as worker:
        await send(worker, "t/bad", "t/1", "t/2", "t/3", "t/4")
        stored = {meter.serial for meter in await Model.all(Meter)}
        ends = {"dead_letter": (3, 2, 0), "drop": (3, 1, 1), "wait": (4, 1, 0)}
        assert stored == {"1", "2", "3"} | ({"4"} if excess == "wait" else set())
        assert (worker.ledger.done, worker.ledger.dead_lettered, worker.ledger.dropped) == ends[excess]
    assert runs > 5


async def test_a_counter_that_is_away_makes_messages_wait(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.001)
    answers: list[bool | Exception] = [CounterUnreachableError("away"), CounterUnreachableError("away"), True, True, False]

    class Counter:
        async def take(self, item: RateLimitItem, key: str) -> bool:
            await asyncio.sleep(0)
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    monkeypatch.setattr(counters(), "redis", Counter())
    seen = noting(router, RateLimit("2/minute", key="device_id"))
    async with running(router) as worker:
        await send(worker, "t/a", "t/a", "t/a")
        assert seen == [("a", 0), ("a", 1)]
        assert worker.ledger.dead_lettered == 1
        assert worker.dead_letters.letters[0].attempts == 1


def test_windows_move_with_each_message_and_forget_idle_keys() -> None:
    now = 0.0
    windows = Windows(3, 10, lambda: now)
    assert [windows.take("a") for _ in range(4)] == [0, 0, 0, 10]
    now = 4.0
    assert windows.take("b") == 0
    assert windows.take("a") == 6
    now = 10.0
    assert [windows.take("a") for _ in range(4)] == [0, 0, 0, 10]
    now = 16.0
    assert windows.take("a") == 4
    assert len(windows) == 1
    now = 30.0
    assert windows.take("c") == 0
    assert len(windows) == 1


def test_windows_count_as_a_list_of_all_times_would() -> None:
    dice = random.Random(1)
    for _ in range(50):
        amount, now = dice.randint(1, 5), 0.0
        windows = Windows(amount, 10, lambda: now)  # noqa: B023 - called within this turn
        taken: dict[str, list[float]] = {}
        for _ in range(300):
            now += dice.choice([0, 0.5, 1, 4, 15])
            times = taken.setdefault(key := dice.choice("abc"), [])
            within = [time for time in times if time > now - 10]
            expected = 0 if len(within) < amount else within[-amount] + 10 - now
            assert windows.take(key) == pytest.approx(expected)
            if expected == 0:
                times.append(now)


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(windows_module, "MAX_KEYS", 100)
    windows = Windows(2, 3600, monotonic)
    for number in range(1000):
        assert windows.take(str(number)) == 0
    assert len(windows) == 100
    assert len(caplog.records) == 1
    monkeypatch.setattr(windows_module, "MAX_STAMPS", 20)
    windows = Windows(15, 3600, monotonic)
    assert [windows.take(key) for key in "abc" for _ in range(15)] == [0] * 45
    assert len(windows) * 15 <= 35
    assert windows.take("c") > 0


async def test_the_test_client_moves_the_time_of_limits_and_starts_them_anew(router: Router) -> None:
    seen = noting(router, RateLimit("2/minute", excess="wait"))
    for _ in range(2):
        async with TestClient(router) as client:
            await client.send("t/a", 1)
            await client.send("t/a", 2)
            with pytest.raises(NotYet):
                await client.send("t/a", 3)
            await client.advance(50)
            assert [number for _, number in seen] == [1, 2]
            await client.advance(11)
            assert [number for _, number in seen] == [1, 2, 3]
            assert client.dead_letters == []
        seen.clear()


@pytest.mark.parametrize(
    "text", ["", "100", "100/fortnight", "0/minute", "5/0 minutes", "-1/minute", "1/second;5/minute", "2000000/day", None]
)
def test_a_limit_that_is_none_is_refused_with_what_is_right(text: Any) -> None:
    with pytest.raises(RouteError, match=r"RateLimit\(.*(Write a number|at most)"):
        RateLimit(text)


def test_what_else_cannot_be_is_refused(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RouteError, match=r"excess='ignore'.*dead_letter, drop, wait"):
        RateLimit("1/minute", excess=cast("Excess", "ignore"))

    async def key(context: Context[Any]) -> int:
        return 1

    with pytest.raises(RouteError, match="neither"):
        RateLimit("1/minute", key=key)
    with pytest.raises(RouteError, match=r"device/<id>.*RateLimit\(key='device_id'\).*its parameters are id"):
        router.on("device/<id>", key, middleware=[RateLimit("1/minute", key="device_id")])
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(StartError, match=r"RATE_LIMIT_URL=redis://x:\*\*\*@host needs the package redis.*pip install"):
        rate_limit.configure("redis://x:secret@host")


@pytest.mark.parametrize("text", ["100/minute", "5 per second", "1000 per 2 hours", " 7/Day "])
def test_limits_that_are_right(text: str) -> None:
    RateLimit(text)
    assert parse(text).get_expiry() > 0
