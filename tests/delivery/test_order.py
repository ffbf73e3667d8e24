"""One key: one after the other. Different keys: side by side."""

from __future__ import annotations

import asyncio

from core.delivery.lanes import Lanes
from core.handling.delivery import Delivery
from core.mqtt.message import Message


def delivery(number: int, key: str = "k") -> Delivery:
    """Return the message ``number`` on the topic ``key``."""
    return Delivery(Message(key, b"%d" % number), None, {})


def number_of(delivery: Delivery) -> int:
    return int(delivery.message.body)


async def test_messages_with_one_key_run_one_after_the_other_and_others_beside_them() -> None:
    running: set[str] = set()
    ended: list[tuple[str, int]] = []
    most = 0
    gate = asyncio.Event()

    async def deliver(delivery: Delivery) -> None:
        nonlocal most
        key, number = delivery.message.topic, number_of(delivery)
        assert key not in running
        running.add(key)
        most = max(most, len(running))
        if key == "slow":
            await gate.wait()
        await asyncio.sleep(0)
        running.discard(key)
        ended.append((key, number))

    lanes = Lanes(deliver)
    for number in range(3):
        for key in ("slow", "a", "b"):
            lanes.put(key, delivery(number, key))
    while len(ended) < 6:
        await asyncio.sleep(0)
    assert [number for key, number in ended if key == "a"] == [0, 1, 2]
    assert [number for key, number in ended if key == "b"] == [0, 1, 2]
    assert most == 3
    gate.set()
    while len(ended) < 9:
        await asyncio.sleep(0)
    assert [number for key, number in ended if key == "slow"] == [0, 1, 2]


async def test_without_a_key_messages_wait_for_nobody() -> None:
    gate = asyncio.Event()
    started: list[int] = []

    async def deliver(delivery: Delivery) -> None:
        started.append(number_of(delivery))
        await gate.wait()

    lanes = Lanes(deliver)
    for number in range(5):
        lanes.put(None, delivery(number))
    await asyncio.sleep(0)
    assert started == [0, 1, 2, 3, 4]
    gate.set()
    await lanes.cut()


async def test_a_lane_takes_messages_again_after_it_ran_empty() -> None:
    ended: list[int] = []

    async def deliver(delivery: Delivery) -> None:
        ended.append(number_of(delivery))

    lanes = Lanes(deliver)
    for number in range(3):
        lanes.put("k", delivery(number))
        while len(ended) <= number:
            await asyncio.sleep(0)
    assert ended == [0, 1, 2]


async def test_cutting_cancels_what_runs_and_never_starts_what_waits() -> None:
    started: list[int] = []
    cancelled: list[int] = []

    async def deliver(delivery: Delivery) -> None:
        started.append(number_of(delivery))
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(number_of(delivery))
            raise

    lanes = Lanes(deliver)
    for number in range(4):
        lanes.put("one key", delivery(number))
    await asyncio.sleep(0)
    await lanes.cut()
    assert (started, cancelled) == ([0], [0])
