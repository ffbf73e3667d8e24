"""What the broker refuses of the outbox is kept, and holds up nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, select

from core.database.current import configured
from core.errors import DeadLettersFullError, HungUpError, MalformedError, PacketTooLargeError
from core.handling.replay import delivery_of
from core.model import Model
from core.mqtt.publication import Publication
from core.publisher import Outgoing
from core.records import outbox as module
from core.records.dead_letter_table import DeadLetterTable
from core.records.dead_letters import DeadLetter
from core.records.outbox import Collected, Outbox
from core.records.tables import metadata
from core.records.tables import outbox as table
from core.router import Router
from tests.database.conftest import url_of
from tests.support.waiting import soon, until

pytestmark = pytest.mark.case(11)


class Picky(Outgoing):
    """Takes everything but what goes to ``bad``."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.refused = 0

    async def send(self, publication: Publication) -> None:
        await asyncio.sleep(0)
        if publication.topic == "bad":
            self.refused += 1
            raise HungUpError("the broker hung up 3 times", 0x80)
        self.sent.append(publication.body)


@pytest.fixture(params=["sqlite", "postgresql"], autouse=True)
async def database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr(module, "PAUSE", 0.01)
    Model.configure(url_of(request.param, tmp_path))
    await configured().create_tables(metadata)
    yield
    await Model.close()


async def stored(*topics: str) -> None:
    """Write a message for each of ``topics`` to the outbox, its body the number of its place."""
    collected = Collected("w")
    for number, topic in enumerate(topics):
        await collected.send(Publication(topic, b"%d" % number, qos=1))
    async with configured().begin() as connection:
        await collected.store(connection)


async def waiting() -> int:
    async with configured().begin() as connection:
        return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())


async def test_what_is_refused_becomes_a_dead_letter_and_the_others_are_sent() -> None:
    letters = DeadLetterTable(configured().begin, 100)
    outgoing = Picky()
    await stored("good", "bad", "good", "bad", "other")
    outbox = Outbox(configured().begin, outgoing, letters.add, "w")
    outbox.start()
    await soon(outbox.flushed())
    assert sorted(outgoing.sent) == [b"0", b"2", b"4"]
    assert await waiting() == 0
    found = [one.letter for one in await letters.read()]
    assert [(one.topic, one.body, one.error, one.route) for one in found] == [
        ("bad", b"1", "UnsentError", None),
        ("bad", b"3", "UnsentError", None),
    ]
    assert "the broker hung up 3 times" in found[0].reason
    await outbox.stop()


async def test_without_room_for_its_dead_letter_it_waits_and_is_not_sent_again(caplog: pytest.LogCaptureFixture) -> None:
    letters = DeadLetterTable(configured().begin, 100)
    outgoing = Picky()
    tries: list[DeadLetter] = []

    async def bury(letter: DeadLetter) -> None:
        tries.append(letter)
        if len(tries) < 10:
            raise DeadLettersFullError("there are 100 dead letters")
        await letters.add(letter)

    await stored("bad", "good")
    outbox = Outbox(configured().begin, outgoing, bury, "w")
    outbox.start()
    await until(lambda: len(tries) > 3)
    assert outgoing.sent == [b"1"]
    assert await waiting() == 1
    await soon(outbox.flushed())
    assert (outgoing.refused, outgoing.sent, await waiting(), await letters.count()) == (1, [b"1"], 0, 1)
    assert caplog.text.count("there are 100 dead letters") == 1
    await outbox.stop()


@pytest.mark.parametrize("kind", [MalformedError, PacketTooLargeError])
async def test_what_waited_on_disk_is_still_refused_afterwards(kind: type[MalformedError]) -> None:
    router = Router()

    @router.on("<path:rest>")
    async def take(context: object) -> None:
        return None

    now = datetime.now(UTC)
    letter = DeadLetter("t", b"", 1, False, None, None, kind.__name__, "X: y", None, 1, now, now, "w")
    delivery = delivery_of(router, letter)
    assert type(delivery.refused) is kind
    assert str(delivery.refused) == "y"
