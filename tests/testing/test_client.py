"""TestClient: what a handler returned or raised, what was published, redelivery, and time that is moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest
from sqlalchemy import Column, Integer, MetaData, String
from sqlalchemy.orm import registry

from core.context import Context
from core.controller import Controller
from core.database.current import configured
from core.errors import (
    MessageError,
    NoRouteError,
    PayloadError,
    Reject,
    RequestTimeoutError,
    RetryLater,
    RouteError,
    RouteMQError,
)
from core.model import Base, Model
from core.periodic import every
from core.publisher import publish
from core.records.tables import metadata
from core.request import request
from core.retry import Retry
from core.router import Router
from core.testing import TestClient
from tests.database.conftest import url_of


class Own(Base):
    __abstract__ = True
    registry = registry()
    metadata = MetaData()


class Note(Own):
    __tablename__ = "notes"

    id = Column(Integer, primary_key=True)
    name = Column(String(40), unique=True)


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[None]:
    Model.configure(url_of(request.param, tmp_path))
    await configured().create_tables(Own.metadata, metadata)
    yield
    await Model.close()


async def test_it_gives_what_the_handler_returned_and_raises_what_it_raised() -> None:
    router = Router()

    @router.on("a/<int:n>")
    async def handle(context: Context[Any]) -> dict[str, Any]:
        if context["payload"] == "bad":
            raise Reject("bad indeed")
        return {"n": context["params"]["n"], "payload": context["payload"], "properties": context["properties"]}

    async with TestClient(router) as client:
        answer = await client.send("a/7", {"x": 1}, properties={"content_type": "text/x"})
        assert answer == {"n": 7, "payload": {"x": 1}, "properties": {"content_type": "text/x"}}
        with pytest.raises(Reject, match="bad indeed"):
            await client.send("a/7", b'"bad"')
        with pytest.raises(PayloadError):
            await client.send("a/7", b"{")
        with pytest.raises(NoRouteError):
            await client.send("a/x", {})
        assert [letter.topic for letter in client.dead_letters] == ["a/7", "a/7", "a/x"]
        assert client.ledger.balanced


async def test_a_message_that_failed_runs_again_when_the_time_has_come_and_the_next_one_waits_behind_it() -> None:
    router = Router()
    seen: list[tuple[int, int]] = []

    @router.on("a/<n>", retry=Retry(attempts=3, first=10, factor=2, jitter=False))
    async def handle(context: Context[Any]) -> None:
        seen.append((context["payload"], context["attempt"]))
        if context["payload"] == 1 and context["attempt"] < 3:
            raise ValueError(f"attempt {context['attempt']}")

    async with TestClient(router) as client:
        with pytest.raises(ValueError, match="attempt 1"):
            await client.send("a/1", 1)
        assert await client.send("a/1", 2) is None
        assert await client.send("a/2", 3) is None
        assert seen == [(1, 1), (3, 1)]
        await client.advance(9.9)
        assert len(seen) == 2
        await client.advance(0.2)
        assert seen[2:] == [(1, 2)]
        await client.advance(3600)
        assert seen[3:] == [(1, 3), (2, 1)]
        assert client.dead_letters == []
        assert client.ledger.done == 3


async def test_after_the_last_attempt_it_is_a_dead_letter() -> None:
    router = Router()

    @router.on("a", retry=Retry(attempts=2, first=1))
    async def handle(context: Context[Any]) -> None:
        raise RetryLater(100) if context["attempt"] == 1 else ValueError("for good")

    async with TestClient(router) as client:
        with pytest.raises(RetryLater):
            await client.send("a", {})
        await client.advance(99)
        assert client.dead_letters == []
        await client.advance(2)
        (letter,) = client.dead_letters
        assert (letter.error, letter.reason, letter.attempts) == ("ValueError", "ValueError: for good", 2)


async def test_what_is_published_and_replied() -> None:
    router = Router()

    @router.on("ask/<who>", reply="answers/<who>")
    async def ask(context: Context[Any]) -> dict[str, str]:
        await context["publish"]("log", "asked", retain=True)
        return {"hello": context["params"]["who"]}

    async with TestClient(router) as client:
        assert await client.send("ask/me", {}) == {"hello": "me"}
        await client.send("ask/me", {}, properties={"response_topic": "mine", "correlation_data": b"7"})
    logged, reply, again, answer = client.published
    assert (logged.topic, logged.payload, logged.retain) == ("log", b"asked", True)
    assert (reply.topic, reply.payload, reply.qos) == ("answers/me", {"hello": "me"}, 1)
    assert again.topic == "log"
    assert (answer.topic, answer.properties["correlation_data"]) == ("mine", b"7")
    assert answer.properties["content_type"] == "application/json"


@pytest.mark.parametrize("batch", [None, 10])
async def test_a_response_topic_with_wildcards_costs_its_message_alone(batch: int | None) -> None:
    router = Router()

    @router.on("ask", batch=batch)
    async def ask(context: Context[Any] | list[Context[Any]]) -> int | list[int]:
        return 1 if batch is None else [1] * len(context)

    async with TestClient(router) as client:
        with pytest.raises(MessageError, match="response topic"):
            await client.send("ask", {}, properties={"response_topic": "a/#"})
        await client.send("ask", {}, properties={"response_topic": "a/b"})
        assert [message.topic for message in client.published] == ["a/b"]
        assert len(client.dead_letters) == 1


async def test_devices_answer_requests_of_handlers() -> None:
    router = Router()

    @router.on("ask/<who>")
    async def ask(context: Context[Any]) -> Any:
        answer = await request(f"devices/{context['params']['who']}/commands", context["payload"], timeout=1)
        old = await request("old/commands", {}, reply="old/answers", timeout=5)
        await publish("told", [answer, old])
        return answer["seen"]

    async with TestClient(router) as client:
        with pytest.raises(RequestTimeoutError):
            await client.send("ask/nobody", {})
        client.answer("devices/+/commands", lambda message: {"seen": message.payload["n"], "by": message.topic})
        client.answer("old/commands", b'"fine"', on="old/answers")
        assert await client.send("ask/me", {"n": 7}) == 7
        assert client.published[-1].payload == [{"seen": 7, "by": "devices/me/commands"}, "fine"]
    with pytest.raises(RouteMQError, match="no connection"):
        await publish("told", 1)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_rows_redelivery_and_replies(database: None, delivery: Literal["at_least_once", "exactly_once"]) -> None:
    router = Router()

    @router.on("notes/<name>", delivery=delivery, reply="notes/<name>/stored")
    async def store(context: Context[Any]) -> dict[str, Any]:
        note = await Model.create(Note, name=context["params"]["name"])
        return {"id": note.id}

    async with TestClient(router, retry=Retry(attempts=1)) as client:
        first = await client.send("notes/a", {})
        assert first == {"id": 1}
        assert [(p.topic, p.payload) for p in client.published] == [("notes/a/stored", first)]
        if delivery == "exactly_once":
            assert await client.redeliver() is None
            assert client.ledger.deduplicated == 1
        else:
            with pytest.raises(Exception, match=r"(?i)unique"):
                await client.redeliver("notes/a")
            assert len(client.dead_letters) == 1
        results = await asyncio.gather(*(client.send(f"notes/n{n}", {}) for n in range(20)))
        assert len({result["id"] for result in results}) == 20
        assert await Model.count(Note) == 21


async def test_error_replies_of_a_transaction(database: None) -> None:
    router = Router()

    @router.on("notes/<name>", delivery="exactly_once", reply="notes/<name>/stored", reply_errors=True)
    async def store(context: Context[Any]) -> None:
        await Model.create(Note, name="never")
        raise Reject("not today")

    async with TestClient(router) as client:
        with pytest.raises(Reject):
            await client.send("notes/a", {})
        await client.advance(1)
        (answer,) = client.published
        assert answer.payload == {"error": {"type": "Reject", "message": "not today"}}
        assert await Model.count(Note) == 0
        assert [letter.reason for letter in client.dead_letters] == ["Reject: not today"]


async def test_exactly_once_needs_a_database() -> None:
    router = Router()
    router.on("a", delivery="exactly_once")(handler)
    with pytest.raises(RouteMQError, match="fixture db"):
        TestClient(router)


async def handler(context: Context[Any]) -> None:
    return None


class Sweeper(Controller):
    ran: list[str] = []  # noqa: RUF012

    @every("30s")
    async def sweep(self) -> None:
        self.ran.append("sweep")

    @every("1h", timeout=5)
    async def fail(self) -> None:
        self.ran.append("fail")
        raise ValueError("cannot")


async def test_periodic_work_happens_when_the_time_has_come(caplog: pytest.LogCaptureFixture) -> None:
    router = Router()
    router.on("a")(handler)
    async with TestClient(router, controllers=[Sweeper]) as client:
        # To a second after the hour, wherever that is from now.
        await client.advance(3601 - client.clock.time() % 3600)
        Sweeper.ran.clear()
        await client.advance(30)
        assert Sweeper.ran == ["sweep"]
        await client.advance(3600)
        assert (Sweeper.ran.count("sweep"), Sweeper.ran.count("fail")) == (121, 1)
    told = [record for record in caplog.records if "periodic work failed" in record.getMessage()]
    assert [record.exc_info is not None for record in told] == [True, False]
    assert "ValueError: cannot [Sweeper.fail]" in told[0].getMessage()


async def test_one_process_does_each_run_of_periodic_work(database: None) -> None:
    Sweeper.ran.clear()
    router = Router()
    router.on("a")(handler)
    async with TestClient(router, controllers=[Sweeper]) as one, TestClient(router, controllers=[Sweeper]) as other:
        other.clock.move_to(one.clock.time())
        one.clock.move_to(other.clock.time())
        for _ in range(10):
            await asyncio.gather(one.advance(30), other.advance(30))
    assert Sweeper.ran.count("sweep") == 10


@pytest.mark.parametrize("period", ["", "x", "5", "-1s", "0s", "1 w", 0, float("nan"), float("inf")])
def test_a_period_that_is_none(period: str | float) -> None:
    with pytest.raises(RouteError, match="30s"):
        every(period)


def test_periodic_work_is_an_async_method() -> None:
    with pytest.raises(RouteError, match="async"):
        every("1s")(lambda self: None)  # type: ignore[type-var]
