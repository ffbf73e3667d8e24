"""The database goes away in mid-stream: everything waits, unacknowledged, and nothing is lost."""

from __future__ import annotations

import asyncio
import sys
from typing import Literal

import psutil
import pytest

from tests.faults.conftest import OutlivingBroker, Streaming
from tests.support.postgres import Postgres
from tests.support.stream import SOAK, grows
from tests.support.waiting import until
from tests.support.worker import Worker

AWAY = 10 if SOAK else 2


@pytest.mark.parametrize("how", ["fast", "immediate", "kill"])
async def test_postgresql_goes_and_comes_back(
    streaming: Streaming, broker: OutlivingBroker, own_postgres: Postgres, how: Literal["fast", "immediate", "kill"]
) -> None:
    times = 3 if SOAK else 1
    stream = streaming(broker.url, DATABASE_URL=own_postgres.new_database())
    worker = await stream.project.start().ready()
    stream.start()
    for _ in range(times):
        await grows(stream, 100)
        await asyncio.to_thread(own_postgres.kill if how == "kill" else lambda: own_postgres.stop(how))
        await worker.says("the database does not answer")
        await asyncio.sleep(AWAY)
        await asyncio.to_thread(own_postgres.start)
        await grows(stream, 100)
    found = await streaming.account(stream, worker, f"PostgreSQL {how}", times)
    assert found.dead == 0
    assert worker.output.count("the database does not answer") == times
    assert worker.output.count("the database answers again") == times


async def test_postgresql_is_not_there_at_the_start(
    streaming: Streaming, broker: OutlivingBroker, own_postgres: Postgres
) -> None:
    stream = streaming(broker.url, DATABASE_URL=own_postgres.new_database())
    # The session is made by a first run, so that the broker keeps what comes while the second one waits.
    assert await (await stream.project.start().ready()).stop() == 0
    await asyncio.to_thread(own_postgres.stop)
    worker = stream.project.start()
    await worker.says("waiting for the database")
    stream.start()
    await asyncio.sleep(AWAY)
    await asyncio.to_thread(own_postgres.start)
    await worker.ready()
    await grows(stream, 100)
    await streaming.account(stream, worker, "PostgreSQL not there at start", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the files of another process")
async def test_a_full_disk_under_sqlite(streaming: Streaming, broker: OutlivingBroker) -> None:
    stream = streaming(broker.url, DB_POOL_RECYCLE=1)
    worker = await stream.project.start().ready()
    process = psutil.Process(worker.process.pid)
    _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
    stream.start()
    await grows(stream, 100)
    # Beyond its first page no file can be written any more.
    process.rlimit(psutil.RLIMIT_FSIZE, (4096, hard))
    await worker_waits(worker)
    await asyncio.sleep(AWAY)
    process.rlimit(psutil.RLIMIT_FSIZE, (hard, hard))
    await grows(stream, 100)
    found = await streaming.account(stream, worker, "disk full, SQLite", 1)
    assert found.dead == 0


async def worker_waits(worker: Worker) -> None:
    """Wait for the line, which may be beyond what the limit lets the log have."""
    sizes: list[int] = []

    def still() -> bool:
        sizes.append(len(worker.output))
        return len(sizes) > 100 and len(set(sizes[-100:])) == 1

    await until(still, 30)
