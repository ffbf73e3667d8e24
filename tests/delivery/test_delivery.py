"""From a message to its end: order, bounds, acknowledgement, retry, dead letter."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from core.context import Context
from core.delivery import window
from core.errors import DatabaseUnreachableError, Reject, RetryLater
from core.handling.failures import outage
from core.records.dead_letter_file import DeadLetterFile
from core.retry import Retry
from core.route import OrderBy
from core.router import Router
from tests.support.memory_worker import running
from tests.support.waiting import until


@pytest.fixture
def router() -> Router:
    return Router()


async def test_messages_of_a_topic_run_one_after_the_other_in_order(router: Router) -> None:
    seen: dict[str, list[int]] = {}
    running_now: set[str] = set()

    @router.on("t/<name>")
    async def handle(context: Context[Any]) -> None:
        topic = context["topic"]
        assert topic not in running_now
        running_now.add(topic)
        await asyncio.sleep(random.random() / 500)
        running_now.discard(topic)
        seen.setdefault(topic, []).append(context["payload"])

    async with running(router) as worker:
        for number in range(50):
            for name in "abcd":
                await worker.send(f"t/{name}", b"%d" % number)
        await worker.settled()
    assert seen == {f"t/{name}": list(range(50)) for name in "abcd"}


async def test_different_topics_run_side_by_side(router: Router) -> None:
    both = asyncio.Barrier(2)

    @router.on("t/+")
    async def handle(context: Context[Any]) -> None:
        await asyncio.wait_for(both.wait(), 5)

    async with running(router) as worker:
        await worker.send("t/a")
        await worker.send("t/b")
        await worker.settled()
        assert worker.ledger.done == 2


@pytest.mark.parametrize("order_by", ["site", lambda message: message.topic.split("/")[1]])
async def test_an_ordering_key_of_ones_own(router: Router, order_by: OrderBy) -> None:
    seen: list[int] = []

    @router.on("<kind>/<site>", order_by=order_by)
    async def handle(context: Context[Any]) -> None:
        await asyncio.sleep(random.random() / 500)
        seen.append(context["payload"])

    async with running(router) as worker:
        for number in range(30):
            await worker.send(f"{random.choice('abc')}/x", b"%d" % number)
        await worker.settled()
    assert seen == list(range(30))


async def test_without_an_order_nobody_waits(router: Router) -> None:
    all_of_them = asyncio.Barrier(5)

    @router.on("t", order_by=None)
    async def handle(context: Context[Any]) -> None:
        await asyncio.wait_for(all_of_them.wait(), 5)

    async with running(router) as worker:
        for _ in range(5):
            await worker.send("t")
        await worker.settled()
        assert worker.ledger.done == 5


async def test_an_ordering_key_that_cannot_be_made_costs_its_message_alone(router: Router) -> None:
    @router.on("t/<n>", order_by=lambda message: json.loads(message.body)["key"])
    async def handle(context: Context[Any]) -> None:
        pass

    async with running(router) as worker:
        await worker.send("t/1", b"{}")
        await worker.send("t/1", b'{"key": []}')
        await worker.send("t/1", b'{"key": 5}')
        await worker.settled()
        assert worker.ledger.done == 1
        assert [letter.body for letter in worker.dead_letters.letters] == [b"{}", b'{"key": []}']
        assert "order_by" in worker.dead_letters.letters[0].reason


async def test_a_message_is_acknowledged_only_after_its_handler(router: Router) -> None:
    go = asyncio.Event()

    @router.on("t")
    async def handle(context: Context[Any]) -> None:
        await go.wait()

    async with running(router) as worker:
        await worker.send("t")
        await asyncio.sleep(0.02)
        assert list(worker.broker.acknowledged) == []
        go.set()
        await worker.settled()
        assert len(worker.broker.acknowledged) == 1


async def test_at_most_once_is_acknowledged_on_receipt_and_never_tried_again(router: Router) -> None:
    go = asyncio.Event()

    @router.on("t/<n>", delivery="at_most_once")
    async def handle(context: Context[Any]) -> None:
        await go.wait()
        raise ValueError("once is enough")

    async with running(router, retry=Retry(attempts=5, first=0)) as worker:
        await worker.send("t/1")
        await until(lambda: len(worker.broker.acknowledged) == 1)
        go.set()
        await worker.settled()
        assert (worker.ledger.failed, worker.ledger.dead_lettered) == (1, 0)


@pytest.mark.parametrize("qos", [0, 1])
async def test_no_more_are_in_hand_than_the_bound(router: Router, qos: Literal[0, 1]) -> None:
    go = asyncio.Event()

    @router.on("t/<n>", qos=qos)
    async def handle(context: Context[Any]) -> None:
        await go.wait()

    async with running(router, limit=20) as worker:
        for number in range(500):
            await worker.send(f"t/{number}", qos=qos)
        await asyncio.sleep(0.02)
        assert 20 <= worker.ledger.in_hand <= 21
        go.set()
        await until(lambda: worker.ledger.done == 500)


async def test_no_more_wait_for_their_acknowledgement_behind_a_slow_one_than_the_bound(router: Router) -> None:
    go = asyncio.Event()

    @router.on("t/<n>")
    async def handle(context: Context[Any]) -> None:
        if context["params"]["n"] == "0":
            await go.wait()

    async with running(router, limit=20) as worker:
        # A broker that knows no Receive Maximum, as with MQTT 3.1.1.
        session, _ = worker.broker.session("worker", 20)
        session.receive_maximum = 10_000
        for number in range(500):
            await worker.send(f"t/{number}")
            await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        assert worker.ledger.received <= 22
        go.set()
        await until(lambda: worker.ledger.done == 500)
        # PUBACKs leave with the next turn of the event loop.
        await until(lambda: len(worker.broker.acknowledged) == 500)


async def test_few_large_messages_are_bounded_too(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "MAX_BYTES", 1000)
    go = asyncio.Event()

    @router.on("t/<n>", codec="raw", qos=0)
    async def handle(context: Context[Any]) -> None:
        await go.wait()

    async with running(router) as worker:
        for number in range(50):
            await worker.send(f"t/{number}", b"x" * 300, qos=0)
        assert worker.ledger.in_hand == 4
        go.set()
        await until(lambda: worker.ledger.done == 50)


async def test_a_failed_message_runs_again_and_later_ones_of_its_key_wait(router: Router) -> None:
    seen: list[tuple[str, int, int]] = []

    @router.on("t/<n>", retry=Retry(attempts=3, first=0.01, jitter=False))
    async def handle(context: Context[Any]) -> None:
        seen.append((context["topic"], context["payload"], context["attempt"]))
        if context["payload"] == 1 and context["attempt"] < 3:
            raise ValueError("not yet")

    async with running(router) as worker:
        await worker.send("t/a", b"1")
        await worker.send("t/a", b"2")
        await worker.send("t/b", b"3")
        await worker.settled()
        assert worker.ledger.done == 3
    assert [entry for entry in seen if entry[0] == "t/a"] == [("t/a", 1, 1), ("t/a", 1, 2), ("t/a", 1, 3), ("t/a", 2, 1)]
    assert seen.index(("t/b", 3, 1)) < seen.index(("t/a", 1, 3))


async def test_after_its_attempts_it_is_a_dead_letter_with_all_that_is_known(router: Router) -> None:
    @router.on("t/<n>", retry=Retry(attempts=2, first=0), name="fails")
    async def handle(context: Context[Any]) -> None:
        raise ValueError("never")

    async with running(router) as worker:
        await worker.send("t/1", b'{"a": 1}', properties={"content_type": "x", "correlation_data": b"\x01"})
        await worker.settled()
        (letter,) = worker.dead_letters.letters
        assert (letter.topic, letter.body, letter.qos, letter.retain) == ("t/1", b'{"a": 1}', 1, False)
        assert letter.properties == {"content_type": "x", "correlation_data": "AQ=="}
        assert (letter.route, letter.error, letter.reason) == ("fails", "ValueError", "ValueError: never")
        assert (letter.attempts, letter.client_id) == (2, "worker")
        assert letter.traceback is not None
        assert "in handle" in letter.traceback
        assert letter.first_at <= letter.last_at
        assert letter.first_at.tzinfo is not None
        assert len(worker.broker.acknowledged) == 1


async def test_reject_is_a_dead_letter_at_once(router: Router) -> None:
    runs: list[int] = []

    @router.on("t", retry=Retry(attempts=5, first=0))
    async def handle(context: Context[Any]) -> None:
        runs.append(1)
        raise Reject("unknown device")

    async with running(router) as worker:
        await worker.send("t")
        await worker.settled()
        assert (len(runs), worker.dead_letters.letters[0].reason) == (1, "Reject: unknown device")


async def test_retry_later_waits_as_long_as_it_says(router: Router) -> None:
    at: list[float] = []

    @router.on("t", retry=Retry(attempts=3, first=10))
    async def handle(context: Context[Any]) -> None:
        at.append(asyncio.get_running_loop().time())
        if len(at) == 1:
            raise RetryLater(0.1)

    async with running(router) as worker:
        await worker.send("t")
        await worker.settled()
        assert 0.1 <= at[1] - at[0] < 5


async def test_only_what_the_policy_names_is_tried_again(router: Router) -> None:
    @router.on("t", retry=Retry(attempts=5, first=0, on=KeyError))
    async def handle(context: Context[Any]) -> None:
        raise ValueError(context["attempt"])

    async with running(router) as worker:
        await worker.send("t")
        await worker.settled()
        assert worker.dead_letters.letters[0].attempts == 1


async def test_a_handler_that_never_returns_is_cut_off_and_the_others_go_on(router: Router) -> None:
    swallowed: list[int] = []

    @router.on("t/<n>", timeout=0.05)
    async def handle(context: Context[Any]) -> None:
        if context["params"]["n"] == "hangs":
            await asyncio.Event().wait()
        if context["params"]["n"] == "stubborn":
            for _ in range(2):
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    swallowed.append(1)
            await asyncio.sleep(60)

    async with running(router) as worker:
        for name in ("hangs", "a", "stubborn", "b"):
            await worker.send(f"t/{name}")
        await until(lambda: worker.ledger.done == 2)
        await worker.settled()
        assert {letter.error for letter in worker.dead_letters.letters} == {"HandlerTimeoutError"}
        assert sorted(letter.topic for letter in worker.dead_letters.letters) == ["t/hangs", "t/stubborn"]
        assert len(swallowed) == 2


def unreachable() -> Exception:
    return DatabaseUnreachableError("gone")


@pytest.mark.parametrize(
    "error",
    [unreachable(), PoolTimeoutError("pool"), OperationalError("", {}, ConnectionError(), connection_invalidated=True)],
)
async def test_an_outage_of_the_database_is_nobodys_dead_letter(
    router: Router, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(outage, "MAX_PAUSE", 0.02)
    down = [True]
    runs: list[str] = []

    @router.on("t/<n>", retry=Retry(attempts=2, first=0))
    async def handle(context: Context[Any]) -> None:
        runs.append(context["topic"])
        assert context["attempt"] == 1
        if down[0]:
            raise error

    async with running(router) as worker:
        for number in range(100):
            await worker.send(f"t/{number}")
        await until(lambda: len(runs) > 10)
        before = len(runs)
        await asyncio.sleep(0.1)
        # One tries, the others wait.
        assert len(runs) - before < 30
        assert list(worker.broker.acknowledged) == []
        down[0] = False
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (100, 0)
    said = [record.getMessage() for record in caplog.records]
    assert sum("does not answer" in line for line in said) == 1
    assert sum("answers again" in line for line in said) == 1


async def test_a_dead_letter_waits_for_its_table_too(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.005)

    @router.on("t")
    async def handle(context: Context[Any]) -> None:
        raise ValueError

    async with running(router) as worker:
        worker.dead_letters.errors = [unreachable() for _ in range(3)]
        await worker.send("t")
        await worker.settled()
        assert len(worker.dead_letters.letters) == 1
        assert len(worker.broker.acknowledged) == 1


async def test_a_dead_letter_that_its_table_refuses_goes_to_the_file(router: Router) -> None:
    @router.on("t")
    async def handle(context: Context[Any]) -> None:
        raise ValueError

    async with running(router) as worker:
        worker.dead_letters.errors = [TypeError("no such column")]
        await worker.send("t")
        await worker.settled()
        assert (len(worker.dead_letters.letters), len(worker.last_resort.letters)) == (0, 1)


async def test_dead_letters_in_a_file_hold_everything(router: Router, tmp_path: Path) -> None:
    file = DeadLetterFile(tmp_path / "storage" / "dead.jsonl", 100)

    @router.on("t/<n>")
    async def handle(context: Context[Any]) -> None:
        raise ValueError("häßlich\nzwei")

    async with running(router, dead_letters=file) as worker:
        for number in range(3):
            await worker.send(f"t/{number}", b'"\xc3\xa4"')
        await worker.settled()
    lines = [json.loads(line) for line in (tmp_path / "storage" / "dead.jsonl").read_text().splitlines()]
    assert sorted(line["topic"] for line in lines) == ["t/0", "t/1", "t/2"]
    assert {line["body"] for line in lines} == {"IsOkIg=="}
    assert {line["reason"] for line in lines} == {"ValueError: häßlich zwei"}


async def test_a_redelivered_message_in_hand_joins_its_first_run(router: Router) -> None:
    go = asyncio.Event()
    runs: list[str] = []

    @router.on("t/<n>")
    async def handle(context: Context[Any]) -> None:
        runs.append(context["topic"])
        await go.wait()

    async with running(router) as worker:
        for number in range(10):
            await worker.send(f"t/{number}")
        await until(lambda: len(runs) == 10)
        worker.broker.drop_connections()
        await until(lambda: worker.ledger.deduplicated == 10)
        go.set()
        await worker.settled()
        assert (len(runs), worker.ledger.done) == (10, 10)
        assert len(worker.broker.acknowledged) == 10


async def test_a_stop_finishes_what_is_in_hand_and_takes_nothing_new(router: Router) -> None:
    done: list[str] = []

    @router.on("t/<n>")
    async def handle(context: Context[Any]) -> None:
        await asyncio.sleep(0.05)
        done.append(context["topic"])

    async with running(router) as worker:
        for number in range(20):
            await worker.send(f"t/{number}")
        await worker.stop()
        assert len(done) == 20
        assert len(worker.broker.acknowledged) == 20


async def test_a_stop_that_takes_too_long_leaves_the_rest_to_the_broker(router: Router) -> None:
    @router.on("t/<n>")
    async def handle(context: Context[Any]) -> None:
        await asyncio.sleep(60)

    async with running(router) as worker:
        for number in range(5):
            await worker.send(f"t/{number}")
        await asyncio.sleep(0)
        await worker.stop(0.05)
        assert (worker.ledger.abandoned, worker.ledger.in_hand) == (5, 0)
        assert list(worker.broker.acknowledged) == []


async def test_the_context_has_what_a_handler_needs(router: Router) -> None:
    seen: list[Context[Any]] = []

    @router.on("t/<int:n>/<name>", name="numbers")
    async def handle(context: Context[Any]) -> None:
        seen.append(context.copy())
        context["state"]["x"] = 1
        await context["publish"]("answer", {"n": context["params"]["n"]}, qos=1)

    async with running(router) as worker:
        await worker.send("t/5/x", b'{"a": 1}', properties={"content_type": "application/json"})
        await worker.settled()
        assert [(m.topic, m.body) for m in worker.broker.published] == [("answer", b'{"n":5}')]
    (context,) = seen
    assert set(context) == {
        "topic", "params", "payload", "body", "qos", "retain", "properties", "received_at", "message_id", "attempt",
        "route", "state", "publish",
    }  # fmt: skip
    assert (context["topic"], context["params"], context["payload"]) == ("t/5/x", {"n": 5, "name": "x"}, {"a": 1})
    assert (context["body"], context["qos"], context["retain"]) == (b'{"a": 1}', 1, False)
    assert context["properties"] == {"content_type": "application/json"}
    assert context["received_at"].utcoffset() == timedelta(0)
    assert (context["attempt"], context["route"].name) == (1, "numbers")


async def test_a_plain_function_runs_in_a_thread(router: Router) -> None:
    threads: list[threading.Thread] = []

    @router.on("t")
    def handle(context: Context[Any]) -> None:
        threads.append(threading.current_thread())

    async with running(router) as worker:
        await worker.send("t")
        await worker.settled()
        assert threads[0] is not threading.main_thread()
