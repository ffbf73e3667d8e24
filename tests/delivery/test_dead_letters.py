"""Where dead letters are stored: in the table and in the file, on all databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pytest

from core.codecs.plain import json_ready
from core.database.current import configured
from core.errors import DeadLettersFullError
from core.handling.replay import every
from core.model import Model
from core.records.dead_letter_file import DeadLetterFile
from core.records.dead_letter_table import DeadLetterTable
from core.records.dead_letters import DeadLetter, DeadLetterStore
from core.records.properties import properties_from_json
from core.records.tables import metadata
from tests.database.conftest import url_of

LETTER = DeadLetter(
    topic="t/ä",
    body=bytes(range(256)),
    qos=1,
    retain=True,
    properties={"content_type": "x", "user_property": [["a", "1"]]},
    route="t/<n>",
    error="ValueError",
    reason="why",
    traceback=None,
    attempts=3,
    first_at=datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC),
    last_at=datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC),
    client_id="c",
)


class Stores(Protocol):
    """Opens the place for dead letters of which ``most`` are kept."""

    def __call__(self, most: int = 1000) -> DeadLetterStore: ...


@pytest.fixture(params=["file", "sqlite", "postgresql"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    if request.param == "file":
        yield lambda most=1000: DeadLetterFile(tmp_path / "storage" / "dead.jsonl", most)
        return
    Model.configure(url_of(request.param, tmp_path))
    await configured().create_tables(metadata)
    yield lambda most=1000: DeadLetterTable(configured().begin, most)
    await Model.close()


async def test_one_comes_back_as_it_went(make: Stores) -> None:
    store = make()
    await store.add(LETTER)
    (stored,) = await make().read()
    assert stored.letter == LETTER
    assert await store.get(stored.id) == stored
    assert await store.get(stored.id + 1) is None


async def test_they_are_read_in_order_and_in_parts(make: Stores) -> None:
    store = make()
    for number in range(10):
        await store.add(replace(LETTER, topic=f"t/{number}", route="even" if number % 2 == 0 else None))
    assert (await store.count(), len(await store.read(most=3))) == (10, 3)
    first = await store.read(most=3)
    following = await store.read(after=first[-1].id, most=3)
    assert [stored.letter.topic for stored in first + following] == [f"t/{n}" for n in range(6)]
    assert [stored.letter.topic for stored in await store.read(route="even")] == [f"t/{n}" for n in range(0, 10, 2)]
    assert [stored.letter.topic for stored in await store.latest(most=2)] == ["t/8", "t/9"]
    assert [stored.letter.topic for stored in await store.latest(most=2, route="even")] == ["t/6", "t/8"]
    assert await store.last() == (await store.latest(most=1))[0].id


async def test_removed_ones_are_gone_and_numbers_are_not_used_again(make: Stores) -> None:
    store = make()
    for _ in range(3):
        await store.add(LETTER)
    one, two, three = await store.read()
    assert await store.remove([one.id, two.id, 99_999]) == 2
    assert [stored.id for stored in await store.read()] == [three.id]
    await store.add(LETTER)
    assert (await store.latest(most=1))[0].id > three.id


@pytest.mark.case(9)
async def test_none_is_deleted_to_make_room_beyond_the_bound(make: Stores) -> None:
    store = make(20)
    for number in range(20):
        await store.add(replace(LETTER, topic=f"t/{number}"))
    for _ in range(3):
        with pytest.raises(DeadLettersFullError, match="DEAD_LETTER_MAX=20"):
            await store.add(LETTER)
    kept = await store.read()
    assert [stored.letter.topic for stored in kept] == [f"t/{number}" for number in range(20)]
    await store.remove([kept[0].id])
    await store.add(LETTER)
    assert await store.count() == 20


async def test_what_is_added_while_all_are_gone_through_is_left_for_later(make: Stores) -> None:
    store = make()
    for _ in range(3):
        await store.add(LETTER)
    seen = 0
    async for _ in every(store):
        seen += 1
        await store.add(LETTER)
    assert (seen, await store.count()) == (3, 6)


async def test_two_processes_share_the_file(tmp_path: Path) -> None:
    worker, command = (DeadLetterFile(tmp_path / "dead.jsonl", 1000) for _ in range(2))

    async def add() -> None:
        for _ in range(50):
            await worker.add(LETTER)

    async def remove() -> int:
        removed = 0
        for _ in range(20):
            removed += await command.remove([stored.id for stored in await command.read(most=5)])
        return removed

    _, removed = await asyncio.gather(add(), remove())
    numbers = [stored.id for stored in await worker.read(most=1000)]
    assert len(numbers) == len(set(numbers)) == 50 - removed
    assert numbers == sorted(numbers)


async def test_a_line_that_a_power_cut_left_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = DeadLetterFile(tmp_path / "dead.jsonl", 1000)
    await store.add(LETTER)
    with (tmp_path / "dead.jsonl").open("a") as file:
        file.write('{"id": 2, "topic": "t')
    assert await DeadLetterFile(tmp_path / "dead.jsonl", 1000).count() == 1
    assert "line 2" in caplog.text
    again = DeadLetterFile(tmp_path / "dead.jsonl", 1000)
    await again.add(LETTER)
    assert [stored.id for stored in await again.read()] == [1, 2]


def test_properties_come_back_as_handlers_know_them() -> None:
    properties = {"correlation_data": b"\x00\xff", "user_property": [("a", "1"), ("a", "2")], "content_type": "x"}
    assert properties_from_json(json_ready(properties)) == properties
    assert properties_from_json(None) is None
