"""Routes that take many messages at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from core.context import Context
from core.errors import BatchError, DatabaseUnreachableError, RetryLater, RouteError
from core.handling.failures import outage
from core.middleware import Handler
from core.retry import Retry
from core.router import Router
from tests.support.memory_worker import MemoryWorker, running
from tests.support.waiting import until


@pytest.fixture
def router() -> Router:
    return Router()


async def send(worker: MemoryWorker, numbers: Iterable[int], topic: str = "t/{}") -> None:
    for number in numbers:
        await worker.send(topic.format(number % 5), b"%d" % number)


async def test_what_waits_comes_as_one_list_and_lists_grow_with_the_load(router: Router) -> None:
    lists: list[list[int]] = []

    @router.on("t/<n>", batch=100)
    async def ingest(contexts: list[Context[Any]]) -> None:
        lists.append([context["payload"] for context in contexts])
        await asyncio.sleep(0.01)

    async with running(router) as worker:
        await send(worker, range(250))
        await worker.settled()
        assert worker.ledger.done == 250
        assert len(worker.broker.acknowledged) == 250
    assert [number for one in lists for number in one] == list(range(250))
    assert max(len(one) for one in lists) == 100
    assert len(lists) <= 5


async def test_a_single_message_waits_for_nobody(router: Router) -> None:
    lists: list[int] = []

    @router.on("t", batch=500)
    async def ingest(contexts: list[Context[Any]]) -> None:
        lists.append(len(contexts))

    async with running(router) as worker:
        await worker.send("t")
        await worker.settled()
    assert lists == [1]


async def test_blamed_messages_follow_their_policy_alone_and_the_others_are_done(router: Router) -> None:
    runs: list[list[tuple[int, int]]] = []

    @router.on("t/<n>", batch=100, retry=Retry(attempts=2, first=0.01))
    async def ingest(contexts: list[Context[Any]]) -> None:
        runs.append([(context["payload"], context["attempt"]) for context in contexts])
        await asyncio.sleep(0.005)
        bad = {index: ValueError("odd one") for index, context in enumerate(contexts) if context["payload"] == 7}
        if bad:
            raise BatchError(bad)

    async with running(router) as worker:
        await send(worker, range(20))
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (19, 1)
        (letter,) = worker.dead_letters.letters
        assert (letter.body, letter.error, letter.attempts) == (b"7", "ValueError", 2)
    assert [(7, 2)] in runs


async def test_another_exception_halves_the_list_until_only_the_guilty_is_left(router: Router) -> None:
    stored: list[int] = []

    @router.on("t/<n>", batch=64, retry=Retry(attempts=1))
    async def ingest(contexts: list[Context[Any]]) -> None:
        await asyncio.sleep(0)
        if any(context["payload"] in {3, 40} for context in contexts):
            raise ValueError("one of you")
        stored.extend(context["payload"] for context in contexts)

    async with running(router) as worker:
        await send(worker, range(64))
        await worker.settled()
        assert sorted(letter.body for letter in worker.dead_letters.letters) == [b"3", b"40"]
    assert sorted(stored) == [number for number in range(64) if number not in {3, 40}]


async def test_bodies_that_cannot_be_read_never_reach_the_handler(router: Router) -> None:
    lists: list[list[int]] = []

    @router.on("t/<n>", batch=10)
    async def ingest(contexts: list[Context[Any]]) -> None:
        lists.append([context["payload"] for context in contexts])

    async with running(router) as worker:
        await worker.send("t/1", b"1")
        await worker.send("t/1", b"nonsense")
        await worker.send("t/1", b"2")
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (2, 1)
    assert [payload for one in lists for payload in one] == [1, 2]


async def test_later_messages_of_a_key_wait_behind_one_that_is_tried_again(router: Router) -> None:
    seen: list[int] = []

    @router.on("t/<n>", batch=10, retry=Retry(attempts=3, first=0.05, jitter=False))
    async def ingest(contexts: list[Context[Any]]) -> None:
        await asyncio.sleep(0)
        bad = {
            index: RetryLater(0.05)
            for index, context in enumerate(contexts)
            if context["payload"] == 0 and context["attempt"] < 3
        }
        seen.extend(context["payload"] for index, context in enumerate(contexts) if index not in bad)
        if bad:
            raise BatchError(bad)

    async with running(router) as worker:
        await worker.send("t/a", b"0")
        await asyncio.sleep(0.01)
        for number in range(1, 6):
            await worker.send("t/a", b"%d" % number)
            await worker.send("t/b", b"%d" % (number + 100))
        await worker.settled()
        assert worker.ledger.done == 11
    of_a = [number for number in seen if number < 100]
    assert of_a == [0, 1, 2, 3, 4, 5]
    assert seen.index(105) < seen.index(0)


async def test_an_outage_is_nobodys_dead_letter(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.005)
    down = [True]
    runs: list[int] = []

    @router.on("t/<n>", batch=50, retry=Retry(attempts=1))
    async def ingest(contexts: list[Context[Any]]) -> None:
        runs.append(len(contexts))
        assert {context["attempt"] for context in contexts} == {1}
        if down[0]:
            raise DatabaseUnreachableError("away")

    async with running(router) as worker:
        await send(worker, range(30))
        await until(lambda: len(runs) > 3)
        down[0] = False
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (30, 0)


async def test_a_list_that_never_returns_is_cut_off_and_halved(router: Router) -> None:
    @router.on("t/<n>", batch=8, timeout=0.05, retry=Retry(attempts=1))
    async def ingest(contexts: list[Context[Any]]) -> None:
        if any(context["payload"] == 2 for context in contexts):
            await asyncio.Event().wait()

    async with running(router) as worker:
        await send(worker, range(8))
        await worker.settled()
        (letter,) = worker.dead_letters.letters
        assert (letter.body, letter.error) == (b"2", "HandlerTimeoutError")
        assert worker.ledger.done == 7


async def test_a_stop_cuts_lists_off_and_leaves_them_to_the_broker(router: Router) -> None:
    @router.on("t/<n>", batch=10)
    async def ingest(contexts: list[Context[Any]]) -> None:
        await asyncio.sleep(60)

    async with running(router) as worker:
        await send(worker, range(30))
        await asyncio.sleep(0.01)
        await worker.stop(0.05)
        assert (worker.ledger.abandoned, worker.ledger.in_hand) == (30, 0)
        assert list(worker.broker.acknowledged) == []


@pytest.mark.parametrize("batch", [0, -1, 10_001, "many", 1.5])
def test_a_batch_that_is_no_number_is_refused(router: Router, batch: Any) -> None:
    with pytest.raises(RouteError, match="batch="):
        router.on("t", lambda contexts: None, batch=batch)


def test_middleware_and_batch_do_not_go_together(router: Router) -> None:
    async def around(context: Context[Any], next_handler: Handler) -> Any:
        return await next_handler(context)

    with pytest.raises(RouteError, match="middleware"):
        router.group("g", middleware=[around]).on("t", lambda contexts: None, batch=5)
