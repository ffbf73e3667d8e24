"""What is remembered of a session: its filters, and which process has it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.database.current import configured
from core.errors import SessionTakenOverError
from core.model import Model
from core.mqtt.publication import Publication
from core.records.session_hold import SessionFile, SessionRecord, SessionStore, SessionTable
from core.records.tables import metadata
from core.session.session import Session
from core.transport.brokers.memory import MemoryBroker
from core.transport.connection import Subscription
from tests.database.conftest import url_of
from tests.support.recorder import Recorder
from tests.support.waiting import soon, until


@pytest.fixture(params=["file", "sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SessionStore]:
    if request.param == "file":
        yield SessionFile(tmp_path / "storage" / "sessions.json")
        return
    Model.configure(url_of(request.param, tmp_path))
    await configured().create_tables(metadata)
    yield SessionTable(configured().begin)
    await Model.close()


async def test_filters_that_are_wanted_no_more_are_given_until_they_are_gone(store: SessionStore) -> None:
    assert await SessionRecord(store, "c", "b").take(["x", "y"]) == []
    # Killed before it could unsubscribe anything, twice.
    assert await SessionRecord(store, "c", "b").take(["y", "z"]) == ["x"]
    third = SessionRecord(store, "c", "b")
    assert await third.take(["w"]) == ["x", "y", "z"]
    await third.subscribed()
    assert await SessionRecord(store, "c", "b").take(["w"]) == []


async def test_sessions_of_other_clients_and_brokers_are_others(store: SessionStore) -> None:
    await SessionRecord(store, "c", "b").take(["x"])
    assert await SessionRecord(store, "other", "b").take(["y"]) == []
    assert await SessionRecord(store, "c", "other").take(["y"]) == []
    assert await SessionRecord(store, "c", "b").take([]) == ["x"]


async def test_the_last_process_to_take_a_session_has_it(store: SessionStore) -> None:
    first, second = SessionRecord(store, "c", "b"), SessionRecord(store, "c", "b")
    await first.take(["x"])
    assert await first.is_held()
    await second.take(["x"])
    assert not await first.is_held()
    assert await second.is_held()


async def test_a_file_that_is_broken_is_begun_anew(tmp_path: Path) -> None:
    file = tmp_path / "sessions.json"
    file.write_text("{")
    assert await SessionRecord(SessionFile(file), "c", "b").take(["x"]) == []
    assert await SessionRecord(SessionFile(file), "c", "b").take([]) == ["x"]


async def test_stale_filters_are_unsubscribed_from_a_session_that_is_there() -> None:
    memory = MemoryBroker()
    first = Session(memory.connector("c"), "memory", [Subscription("old", 1), Subscription("kept", 1)])
    first.start(Recorder())
    await first.connected()
    await first.stop()
    heard = Recorder()
    second = Session(memory.connector("c"), "memory", [Subscription("kept", 1)], stale=["old"])
    second.start(heard)
    await second.connected()
    memory.publish(Publication("old", b"gone", qos=1))
    memory.publish(Publication("kept", b"there", qos=1))
    await until(lambda: heard.messages)
    assert heard.bodies == [b"there"]
    await second.stop()


class Hold:
    def __init__(self, answer: bool | Exception) -> None:
        self.answer = answer
        self.told = 0

    async def is_held(self) -> bool:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def subscribed(self) -> None:
        self.told += 1
        if isinstance(self.answer, Exception):
            raise self.answer


async def test_a_session_that_another_process_took_is_not_fought_for() -> None:
    memory = MemoryBroker()
    hold = Hold(answer=False)
    session = Session(memory.connector("c"), "memory", [Subscription("t", 1)], hold=hold)
    task = session.start(Recorder())
    await session.connected()
    assert hold.told == 1
    memory.drop_connections()
    with pytest.raises(SessionTakenOverError, match="MQTT_CLIENT_ID"):
        await soon(task)


@pytest.mark.parametrize("answer", [True, OSError("disk")])
async def test_a_broken_network_is_no_other_process(answer: bool | Exception) -> None:
    memory = MemoryBroker()
    heard = Recorder()
    session = Session(memory.connector("c"), "memory", [Subscription("t", 1)], hold=Hold(answer))
    session.start(heard)
    await session.connected()
    memory.drop_connections()
    await until(lambda: len(heard.connacks) == 2)
    await session.stop()
