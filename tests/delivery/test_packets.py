"""The record of packets: whose redelivery is known, over sessions, processes and the circle of identifiers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest
from sqlalchemy import func, insert, select, update

from core.database.current import configured
from core.errors import ConnectionLostError, DatabaseUnreachableError
from core.model import Model
from core.mqtt.message import Message
from core.records import packets as module
from core.records.packets import CIRCLE, MARK_EVERY, MAX_UNMARKED, Packets, digest
from core.records.tables import metadata, processed
from core.session.identity import Identity, Verdict
from tests.database.conftest import url_of
from tests.support.waiting import until

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


@pytest.fixture(params=["sqlite", "postgresql"], autouse=True)
async def database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    Model.configure(url_of(request.param, tmp_path))
    await configured().create_tables(metadata)
    yield
    for process in Process.started:
        await process.packets.stop()
    Process.started.clear()
    await Model.close()


class Gate:
    def __init__(self) -> None:
        self.blocked = False

    def block(self) -> None:
        self.blocked = True

    def unblock(self) -> None:
        self.blocked = False


class Process:
    """A process with a record of its own. ``up`` says whether its database answers."""

    started: ClassVar[list[Process]] = []

    def __init__(self) -> None:
        self.started.append(self)
        self.up = True
        self.gate = Gate()
        self.packets = Packets(self._begin, "c", "b", None, self.gate)

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[AsyncConnection]:
        if not self.up:
            raise DatabaseUnreachableError("away")
        async with configured().begin() as connection:
            yield connection

    async def commit(self, messages: Iterable[Message]) -> None:
        async with configured().begin() as connection:
            record = await self.packets.record(connection, messages)
        assert record is not None
        self.packets.committed(record)

    def known(self, numbers: Iterable[int]) -> int:
        """Return how many of them are known when they come again."""
        return sum(self.packets.receive(message) for message in sent(numbers, dup=True))

    async def marked(self) -> None:
        await until(lambda: self.packets._marking is None or self.packets._marking.done())


def sent(numbers: Iterable[int], *, dup: bool = False) -> list[Message]:
    """Return equal messages with the packet identifiers of ``numbers``, counted from 1."""
    return [Message("t", b"open", 1, (number - 1) % CIRCLE + 1, dup=dup) for number in numbers]


async def started(*, present: bool = True, ready: bool = True) -> Process:
    process = Process()
    await process.packets.load()
    process.packets.connected(session_present=present)
    if ready:
        await process.packets.ready()
    return process


async def working(numbers: Iterable[int]) -> Process:
    """Return a process with a new session, which has committed ``numbers``."""
    process = await started(present=False)
    messages = sent(numbers)
    assert not any(process.packets.receive(message) for message in messages)
    await process.commit(messages)
    return process


async def rows() -> int:
    async with configured().begin() as connection:
        return int((await connection.execute(select(func.count()).select_from(processed))).scalar_one())


async def test_what_was_committed_is_known_by_each_later_process() -> None:
    await working(range(1, 16))
    for _ in range(3):
        # The session is proven to be the old one only after its generation was written down.
        process = await started()
        assert process.known(range(1, 16)) == 15
        await process.marked()
    process = await started(ready=False)
    assert process.known(range(1, 16)) == 15
    await process.packets.ready()
    process = await started()
    assert process.known(range(1, 17)) == 15


async def test_nothing_of_a_session_that_is_gone_is_known() -> None:
    process = await working(range(1, 16))
    process.packets.connected(session_present=False)
    await process.packets.ready()
    assert process.known(range(1, 16)) == 0
    process = await started()
    assert process.known(range(1, 16)) == 0


async def test_a_process_killed_before_the_new_session_was_written_down() -> None:
    await working(range(1, 16))
    # CONNACK says that there is no session, and the process is killed at once.
    await started(present=False, ready=False)
    process = await started()
    assert not any(process.packets.receive(message) for message in sent(range(1, 16)))
    process = await started()
    assert process.known(range(1, 16)) == 0


async def test_without_a_database_nothing_is_subscribed() -> None:
    process = await working(range(1, 16))
    process.up = False
    process.packets.connected(session_present=False)
    with pytest.raises(ConnectionLostError, match="nothing is subscribed, because the database could not record"):
        await process.packets.ready()
    # The attempt has made a session at the broker.
    process.packets.connected(session_present=True)
    with pytest.raises(ConnectionLostError):
        await process.packets.ready()
    process.up = True
    await process.packets.ready()
    process = await started()
    assert process.known(range(1, 16)) == 0


async def test_what_is_in_hand_of_a_session_that_is_gone_is_not_recorded_in_the_new_one() -> None:
    process = await started(present=False)
    messages = sent(range(1, 16))
    assert not any(process.packets.receive(message) for message in messages)
    async with configured().begin() as connection:
        record = await process.packets.record(connection, messages)
        process.packets.connected(session_present=False)
    assert record is not None
    process.packets.committed(record)
    await process.packets.ready()
    process.packets.connected(session_present=True)
    assert process.known(range(1, 16)) == 0
    assert (await started()).known(range(1, 16)) == 0


async def test_packets_of_other_routes_are_counted_also_by_processes_that_are_killed() -> None:
    process = await working(range(1, 16))
    number = 15
    while number < CIRCLE:
        # Killed again and again, before the position is written down.
        for message in sent(range(number + 1, min(number + 8000, CIRCLE) + 1)):
            process.packets.receive(message)
        number = min(number + 8000, CIRCLE)
        process = await started()
    assert not any(process.packets.receive(message) for message in sent(range(CIRCLE + 1, CIRCLE + 16)))
    process = await started()
    assert process.known(range(1, 16)) == 0


async def test_the_position_is_written_down_now_and_then_and_old_rows_go() -> None:
    process = await working(range(1, 16))
    for message in sent(range(16, 3 * CIRCLE)):
        process.packets.receive(message)
        if process.packets._position - process.packets._marked >= MARK_EVERY:
            await process.marked()
    assert await rows() < 6
    assert not process.gate.blocked


async def test_reading_pauses_before_the_circle_could_close_while_the_database_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    process = await working(range(1, 16))
    process.up = False
    for message in sent(range(16, 16 + MAX_UNMARKED)):
        assert not process.gate.blocked
        process.packets.receive(message)
    assert process.gate.blocked
    await until(lambda: "no message is read until the database records" in caplog.text)
    process.up = True
    await until(lambda: not process.gate.blocked)
    assert "messages are read again" in caplog.text
    await process.packets.stop()


async def test_an_identifier_that_comes_again_too_soon_makes_all_others_worthless() -> None:
    process = await working(range(1, 16))
    assert not any(process.packets.receive(message) for message in sent([7]))
    assert process.gate.blocked
    await process.marked()
    assert not process.gate.blocked
    assert process.known(range(1, 16)) == 0
    assert (await started()).known(range(1, 16)) == 0


async def test_where_identifiers_prove_nothing_none_is_recorded() -> None:
    process = await started(present=False)
    process.packets.identity._set(Verdict.REUSES)
    for _ in range(40_000):
        assert not any(process.packets.receive(message) for message in sent([1]))
    await process.commit(sent(range(1, 16)))
    process = await started()
    assert process.known(range(1, 16)) == 0


@pytest.fixture
async def before_the_upgrade() -> None:
    body = b"".join(m.packet_id.to_bytes(2, "big") + digest(m) for m in sent(range(65_530, 65_545)))
    async with configured().begin() as connection:
        process = Packets(configured().begin, "c", "b")
        await connection.execute(insert(processed).values(process._row(body, "old")))
        await connection.execute(update(processed).values(generation=None, position=None))


@pytest.mark.usefixtures("before_the_upgrade")
async def test_rows_of_before_the_upgrade_count_in_a_session_that_is_still_there() -> None:
    process = await started()
    assert process.known(range(65_530, 65_545)) == 15
    await process.marked()
    assert (await started()).known(range(65_530, 65_545)) == 15


@pytest.mark.usefixtures("before_the_upgrade")
async def test_rows_of_before_the_upgrade_are_worthless_in_another_session() -> None:
    process = await started(present=False)
    assert process.known(range(65_530, 65_545)) == 0
    assert (await started()).known(range(65_530, 65_545)) == 0


async def test_doubts_are_settled_by_asking(caplog: pytest.LogCaptureFixture) -> None:
    answers = [Verdict.CIRCLE, Verdict.CIRCLE, Verdict.RENUMBERS]
    kept: list[Verdict] = []

    async def ask() -> Verdict:
        return answers.pop(0)

    async def keep(verdict: Verdict) -> None:
        kept.append(verdict)

    identity = Identity("mqtt://b", "c", ask, keep)
    await identity.ask()
    await identity.ask()
    assert (identity.verdict, len(answers)) == (Verdict.CIRCLE, 2)
    identity.doubt(Verdict.REUSES)
    await until(lambda: len(answers) == 1)
    assert identity.recorded
    identity._doubted_at = 0
    identity.doubt(Verdict.REUSES)
    await until(lambda: identity.verdict is Verdict.RENUMBERS)
    assert not identity.recorded
    assert not identity.joined
    assert kept == [Verdict.CIRCLE, Verdict.CIRCLE, Verdict.RENUMBERS]
    assert caplog.text.count("under another packet identifier") == 1
    later = Identity("mqtt://b", "c", ask, keep)
    later.remember("RENUMBERS", identity._asked_at)
    await later.ask()
    assert later.verdict is Verdict.RENUMBERS
    await identity.stop()


async def test_what_is_seen_again_and_again_is_believed() -> None:
    async def ask() -> Verdict:
        return Verdict.CIRCLE

    identity = Identity("mqtt://b", "c", ask)
    for _ in range(4):
        assert identity.recorded
        identity._doubted_at = 0
        identity.doubt(Verdict.REUSES)
        await until(lambda: identity._doubting is not None and identity._doubting.done())
    assert identity.verdict is Verdict.REUSES
