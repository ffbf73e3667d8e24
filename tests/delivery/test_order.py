"""One key: one after the other. Different keys: side by side."""

import asyncio

from core.delivery.lanes import Lanes


async def test_messages_with_one_key_run_one_after_the_other_and_others_beside_them():
    running, ended, most = set(), [], 0
    gate = asyncio.Event()

    async def deliver(delivery):
        nonlocal most
        key, number = delivery
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
            lanes.put(key, (key, number))
    while len(ended) < 6:
        await asyncio.sleep(0)
    assert [number for key, number in ended if key == "a"] == [0, 1, 2]
    assert [number for key, number in ended if key == "b"] == [0, 1, 2]
    assert most == 3
    gate.set()
    while len(ended) < 9:
        await asyncio.sleep(0)
    assert [number for key, number in ended if key == "slow"] == [0, 1, 2]


async def test_without_a_key_messages_wait_for_nobody():
    gate = asyncio.Event()
    started = []

    async def deliver(delivery):
        started.append(delivery)
        await gate.wait()

    lanes = Lanes(deliver)
    for number in range(5):
        lanes.put(None, number)
    await asyncio.sleep(0)
    assert started == [0, 1, 2, 3, 4]
    gate.set()
    await lanes.cut()


async def test_a_lane_takes_messages_again_after_it_ran_empty():
    ended = []

    async def deliver(delivery):
        ended.append(delivery)

    lanes = Lanes(deliver)
    for number in range(3):
        lanes.put("k", number)
        while len(ended) <= number:
            await asyncio.sleep(0)
    assert ended == [0, 1, 2]


async def test_cutting_cancels_what_runs_and_never_starts_what_waits():
    started, cancelled = [], []

    async def deliver(delivery):
        started.append(delivery)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(delivery)
            raise

    lanes = Lanes(deliver)
    for number in range(4):
        lanes.put("one key", number)
    await asyncio.sleep(0)
    await lanes.cut()
    assert (started, cancelled) == ([0], [0])
