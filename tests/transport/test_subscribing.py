"""A session that has collected much sends it before SUBACK: the consumer can stop the reading by then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from core.mqtt.publication import Publication
from core.session.presence import Presence
from core.session.session import Session
from core.transport.brokers.memory import MemoryBroker, MemoryConnection
from core.transport.connection import Connection, Listener, Subscription
from tests.support.recorder import Recorder
from tests.support.waiting import soon, until

if TYPE_CHECKING:
    import pytest


class Slow(MemoryConnection):
    """Its SUBACK comes when ``answered`` is set."""

    made: ClassVar[list[Slow]] = []

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.answered = asyncio.Event()
        self.made.append(self)

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        await self.answered.wait()
        await super().subscribe(subscriptions)


def slow(broker: MemoryBroker, presence: Presence | None = None) -> Session:
    def connect(listener: Listener, number: int) -> Connection:
        return Slow(broker, "w", 10, listener, number)

    return Session(connect, "memory", [Subscription("a", 1)], presence=presence)


async def watching(broker: MemoryBroker) -> Recorder:
    """Give what hears the status."""
    watcher = Recorder()
    connection = MemoryConnection(broker, "watcher", 10, watcher, 1)
    await connection.open()
    await connection.subscribe([Subscription("status", 1)])
    return watcher


async def test_reading_is_paused_and_resumed_while_the_session_subscribes() -> None:
    broker = MemoryBroker()
    session = slow(broker)
    Slow.made.clear()
    heard = Recorder()
    session.start(heard)
    await until(lambda: heard.connacks)
    (connection,) = Slow.made
    session.pause_reading()
    assert not connection.reading
    session.resume_reading()
    assert connection.reading
    session.pause_reading()
    connection.answered.set()
    await session.connected()
    assert not connection.reading
    session.resume_reading()
    assert connection.reading
    await session.stop()


async def test_who_starts_paused_reads_suback_of_a_new_session_and_no_backlog_of_an_old_one() -> None:
    broker = MemoryBroker()
    watcher = await watching(broker)
    session = slow(broker)
    Slow.made.clear()
    session.pause_reading()
    heard = Recorder()
    session.start(heard)
    await until(lambda: heard.connacks)
    assert Slow.made[0].reading
    Slow.made[0].answered.set()
    await session.connected()
    assert not Slow.made[0].reading
    await session.stop()

    again = slow(broker, Presence("status", "w", "1"))
    again.pause_reading()
    heard = Recorder()
    again.start(heard)
    await until(lambda: len(Slow.made) == 2 and heard.connacks)
    await until(lambda: not Slow.made[1].reading)
    # It is at work on the backlog: online, and publishing, before SUBACK.
    await until(lambda: [message.topic for message in watcher.messages] == ["status"])
    await soon(again.publish(Publication("status", b"x", qos=1)))
    confirmed = asyncio.create_task(again.connected())
    await asyncio.sleep(0)
    assert again.stands
    assert not confirmed.done()
    Slow.made[1].answered.set()
    await confirmed
    assert not Slow.made[1].reading
    await again.stop()


async def test_a_stop_before_suback_tells_offline_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    broker = MemoryBroker()
    watcher = await watching(broker)
    first = MemoryConnection(broker, "w", 10, Recorder(), 1)
    await first.open()
    await first.close()
    Slow.made.clear()
    session = slow(broker, Presence("status", "w", "1"))
    session.start(Recorder())
    await until(lambda: session.stands)
    await soon(session.stop())
    assert [json.loads(message.body)["status"] for message in watcher.messages] == ["online", "offline"]
    assert not caplog.records
