"""A BatchError blames single messages of a list. What is rolled back by it for the others is stored by another run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from core.context import Context
from core.database.current import configured
from core.errors import BatchError
from core.handling.failures import outage
from core.model import Model
from core.records.tables import metadata
from core.retry import Retry
from core.router import Router
from tests.database.conftest import url_of
from tests.support.memory_worker import running
from tests.support.models import Meter, Plain

Contexts = list[Context[Any]]
Delivery = Literal["at_least_once", "exactly_once"]


@pytest.fixture(params=["sqlite", "postgresql"], autouse=True)
async def database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.005)
    Model.configure(url_of(request.param, tmp_path))
    await configured().create_tables(Plain.metadata, metadata)
    yield
    await Model.close()


def sorted_out(contexts: Contexts) -> tuple[list[dict[str, Any]], dict[int, Exception]]:
    bad: dict[int, Exception] = {n: ValueError("odd") for n, context in enumerate(contexts) if context["payload"] % 10 == 3}
    return [{"serial": str(context["payload"])} for n, context in enumerate(contexts) if n not in bad], bad


def meters(rows: list[dict[str, Any]]) -> list[Meter]:
    return [Meter(**row) for row in rows]


async def in_transaction(contexts: Contexts) -> None:
    good, bad = sorted_out(contexts)
    async with Model.transaction():
        await Model.create_many(Meter, good)
        if bad:
            raise BatchError(bad)


async def in_inner_transaction(contexts: Contexts) -> None:
    good, bad = sorted_out(contexts)
    async with Model.transaction(), Model.transaction() as session:
        session.add_all(meters(good))
        if bad:
            raise BatchError(bad)


async def in_session(contexts: Contexts) -> None:
    good, bad = sorted_out(contexts)
    async with Model.session() as session:
        session.add_all(meters(good))
        if bad:
            raise BatchError(bad)
        await session.commit()


async def in_begun_session(contexts: Contexts) -> None:
    good, bad = sorted_out(contexts)
    async with await Model.get_session() as session, session.begin():
        session.add_all(meters(good))
        if bad:
            raise BatchError(bad)


async def behind_transaction(contexts: Contexts) -> None:
    good, bad = sorted_out(contexts)
    async with Model.transaction():
        await Model.create_many(Meter, good)
    if bad:
        raise BatchError(bad)


async def behind_commit(contexts: Contexts) -> None:
    good, bad = sorted_out(contexts)
    async with Model.session() as session:
        session.add_all(meters(good))
        await session.commit()
        if bad:
            raise BatchError(bad)


WAYS = (in_transaction, in_inner_transaction, in_session, in_begun_session, behind_transaction, behind_commit)


@pytest.mark.parametrize(("delivery", "atomic"), [("at_least_once", True), ("at_least_once", False), ("exactly_once", True)])
@pytest.mark.parametrize("way", WAYS)
async def test_each_good_message_is_stored_once_wherever_the_error_is_raised(
    way: Callable[[Contexts], Awaitable[None]], delivery: Delivery, atomic: bool
) -> None:
    router = Router()
    router.on("t/<n>", way, delivery=delivery, atomic=atomic, batch=50, retry=Retry(attempts=1))
    async with running(router, exactly_once=True) as worker:
        for number in range(25):
            await worker.send(f"t/{number % 3}", b"%d" % number)
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (22, 3)
    stored = sorted(int(str(meter.serial)) for meter in await Model.all(Meter))
    assert stored == [number for number in range(25) if number % 10 != 3]


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("place", [-1, 50])
async def test_an_error_that_names_no_message_of_the_list_is_no_success(delivery: Delivery, place: int) -> None:
    router = Router()

    @router.on("t/<n>", delivery=delivery, batch=50, retry=Retry(attempts=1))
    async def ingest(contexts: Contexts) -> None:
        if any(context["payload"] == 3 for context in contexts):
            raise BatchError({place: ValueError("nobody")})

    async with running(router, exactly_once=True) as worker:
        for number in range(10):
            await worker.send(f"t/{number}", b"%d" % number)
        await worker.settled()
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (9, 1)
