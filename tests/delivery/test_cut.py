"""A stop that cuts off what is in hand, within a statement: nothing goes on, and every connection is given back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text

from core.context import Context
from core.database.current import configured
from core.database.driver import connect
from core.delivery.backlog import Store
from core.handling.end import End
from core.model import Model
from core.records.dead_letter_table import DeadLetterTable
from core.records.tables import backlog, metadata
from core.retry import Retry
from core.router import Router
from tests.database.conftest import url_of
from tests.support.memory_worker import running
from tests.support.models import Meter, Plain
from tests.support.waiting import soon, until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal


@pytest.fixture(params=["sqlite", "postgresql"], autouse=True)
async def database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    monkeypatch.setattr(connect, "SQLITE_BUSY_TIMEOUT", 1.0)
    Model.configure(url_of(request.param, tmp_path))
    await configured().create_tables(Plain.metadata, metadata)
    yield request.param
    await Model.close()


@asynccontextmanager
async def locked(database: str) -> AsyncIterator[None]:
    """Let no row be inserted within the block: a second connection holds the lock of the table, or of the whole file."""
    engine = configured().engine
    async with engine.connect() as connection:
        if database == "postgresql":
            await connection.execute(text("LOCK TABLE meters IN EXCLUSIVE MODE"))
        else:
            await connection.execute(text("DELETE FROM meters"))
        yield


def in_use() -> int:
    pool: Any = configured().engine.sync_engine.pool
    return int(pool.checkedout())


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("batch", [None, 10])
async def test_a_cut_within_a_statement_ends_all_and_fails_nothing(
    database: str,
    delivery: Literal["exactly_once", "at_least_once"],
    batch: int | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    router, runs, sent = Router(), 0, 0

    @router.on("t/<n>", delivery=delivery, batch=batch)
    async def store(context: Any) -> None:
        nonlocal runs
        runs += 1
        contexts: Sequence[Context[int]] = context if batch else [context]
        for each in contexts:
            await Model.create(Meter, serial=str(each["payload"]))

    def count(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
        nonlocal sent
        sent += statement.startswith("INSERT INTO meters")

    caplog.set_level(logging.WARNING)
    event.listen(configured().engine.sync_engine, "before_cursor_execute", count)
    async with running(router, exactly_once=True) as worker:
        async with locked(database):
            for number in range(3):
                await worker.send(f"t/{number}", b"%d" % number)
            await until(lambda: sent or (database == "sqlite" and runs))
            await asyncio.sleep(0.05)
            before = runs
            await soon(worker.engine.consumer.cut(), 15)
            assert worker.ledger.of(End.ABANDONED) == 3
            # SQLite's thread waits for the file to its own end.
            assert in_use() == 1 or database == "sqlite"
        await until(lambda: in_use() == 0)
        # Whatever would go on had now all it needs.
        await asyncio.sleep(0.2)
        assert runs == before
    assert not worker.broker.acknowledged
    assert await Model.all(Meter) == []
    assert not caplog.records


async def test_a_stop_within_a_statement_of_the_backlog_is_no_failure(database: str) -> None:
    router, runs = Router(), 0
    place = DeadLetterTable(configured().begin, 100, table=backlog, client_id="worker")

    @router.on("t/<n>", delivery="exactly_once", retry=Retry(attempts=1))
    async def store(context: Context[int]) -> None:
        nonlocal runs
        runs += 1
        await Model.create(Meter, serial=str(context["payload"]))

    async with running(router, exactly_once=True, backlog=Store(place)) as worker:
        worker.engine.dispatch.circuits.stand("t/<n>", "the database refuses its messages")
        await worker.send("t/1", b"1")
        await until(lambda: worker.ledger.of(End.WAITING))
        async with locked(database):
            await until(lambda: runs or (database == "sqlite" and in_use() > 1))
            await asyncio.sleep(0.05)
            await soon(worker.engine._backlog.stop(), 15)
            assert in_use() == 1 or database == "sqlite"
        await until(lambda: in_use() == 0)
        assert worker.ledger.of(End.DEAD_LETTERED) == worker.ledger.of(End.DONE) == 0
    assert await place.count() == 1
    assert await Model.all(Meter) == []
