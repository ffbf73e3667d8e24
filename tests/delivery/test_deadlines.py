"""A handler that does not return is cut off; all others never notice that there is a clock."""

from __future__ import annotations

import asyncio

import pytest

from core.handling import deadlines as module
from core.handling.deadlines import Deadlines
from core.handling.delivery import Delivery
from core.mqtt.message import Message
from tests.support.waiting import until


def delivery() -> Delivery:
    return Delivery(Message("t", b""), None, {})


async def test_a_run_past_its_deadline_is_cancelled_and_marked() -> None:
    deadlines, hung = Deadlines(), delivery()

    async def handler() -> None:
        run = deadlines.begin(hung, 0.02)
        try:
            await asyncio.Event().wait()
        finally:
            run.end()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(handler())
    assert hung.timed_out


async def test_runs_that_end_in_time_leave_nothing_behind_and_are_not_touched() -> None:
    deadlines = Deadlines()
    deliveries = [delivery() for _ in range(200)]

    async def handler(number: int) -> None:
        run = deadlines.begin(deliveries[number], 1.0 if number % 2 else 1.5)
        await asyncio.sleep(0.001)
        run.end()

    await asyncio.gather(*(handler(number) for number in range(200)))
    assert len(deadlines) == 0
    await until(lambda: not deadlines.ticking)
    assert not any(one.timed_out for one in deliveries)


async def test_a_handler_that_swallows_its_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN", 0.02)
    deadlines, stubborn, swallowed = Deadlines(), delivery(), 0

    async def handler() -> None:
        nonlocal swallowed
        deadlines.begin(stubborn, 0.02)
        while swallowed < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1

    await asyncio.wait_for(asyncio.create_task(handler()), 5)
    assert swallowed == 3
    deadlines.stop()
