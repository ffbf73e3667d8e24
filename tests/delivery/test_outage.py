"""While the infrastructure is away one delivery tries, all others wait, and the log says so once."""

from __future__ import annotations

import asyncio
import logging

import pytest

from core.handling.delivery import Delivery
from core.handling.failures import outage as module
from core.handling.failures.outage import Outage
from core.mqtt.message import Message

LOG = logging.getLogger("test.outage")


def delivery(name: str) -> Delivery:
    return Delivery(Message(name, b""), None, {})


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(module, "MAX_PAUSE", 0.02)


async def run(outage: Outage, delivery: Delivery, database: asyncio.Event, log: list[str]) -> None:
    """Stand in for a delivery: run, and sit the outage out whenever the database is away."""
    while True:
        if outage.active:
            await outage.over(delivery)
        log.append(delivery.message.topic)
        if database.is_set():
            outage.answered(delivery)
            return
        await outage.sit_out(delivery, ConnectionRefusedError("no\ndatabase"))


async def test_one_tries_for_all_and_the_log_has_one_line_at_each_end(caplog: pytest.LogCaptureFixture) -> None:
    outage, database = Outage(LOG), asyncio.Event()
    runs: list[str] = []
    with caplog.at_level(logging.INFO):
        tasks = [asyncio.create_task(run(outage, delivery(f"d{n}"), database, runs)) for n in range(50)]
        while len(runs) < 60:
            await asyncio.sleep(0.001)
        # Each has its turn, one at a time, so that none that meets the fault alone holds back all others.
        assert runs[:51] == [f"d{n}" for n in range(50)] + ["d0"]
        database.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert not outage.active
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "ConnectionRefusedError: no database" in caplog.records[0].message
    assert "answers again" in caplog.records[1].message


async def test_a_long_outage_is_told_again_from_time_to_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMIND_EVERY", 0.03)
    outage, database = Outage(LOG), asyncio.Event()
    runs: list[str] = []
    task = asyncio.create_task(run(outage, delivery("d"), database, runs))
    while len(caplog.records) < 3:
        await asyncio.sleep(0.001)
    database.set()
    await asyncio.wait_for(task, 5)
    assert "has not answered for" in caplog.records[1].message


async def test_another_takes_over_when_the_one_that_tried_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    outage, database = Outage(LOG), asyncio.Event()
    runs: list[str] = []
    tasks = {f"d{n}": asyncio.create_task(run(outage, delivery(f"d{n}"), database, runs)) for n in range(5)}
    while runs.count("d0") < 2:
        await asyncio.sleep(0.001)
    tasks.pop("d0").cancel()
    while not all(runs.count(name) >= 3 for name in tasks):
        await asyncio.sleep(0.001)
    database.set()
    await asyncio.wait_for(asyncio.gather(*tasks.values()), 5)
    assert not outage.active
    assert len([record for record in caplog.records if "does not answer" in record.message]) == 1
