"""Handlers that publish while the broker is away: their messages wait, none is a dead letter, and all are stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from core.context import Context
from core.database.current import configured
from core.handling.failures import outage
from core.model import Model
from core.mqtt.publication import Publication
from core.publisher import Publisher, publish, use_publisher
from core.records.tables import metadata
from core.router import Router
from core.session import session
from core.transport.connect import connector
from core.transport.connection import Subscription
from tests.support.memory_worker import running
from tests.support.models import Meter, Plain
from tests.support.mosquitto import Mosquitto
from tests.support.postgres import fetch, postgres
from tests.support.recorder import Recorder
from tests.support.waiting import soon, until
from tests.transport.conftest import options

TIMEOUT = 0.5
"""Of the handlers, in seconds. The broker is away for longer."""
MESSAGES = 20


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(session, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(session, "MAX_PAUSE", 0.2)


@pytest.fixture
async def database() -> AsyncIterator[str]:
    url = postgres().new_database()
    Model.configure(url)
    await configured().create_tables(Plain.metadata, metadata)
    yield url
    await Model.close()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Mosquitto:
    return Mosquitto(tmp_path / "mosquitto")


@pytest.fixture
async def publisher(mosquitto: Mosquitto) -> AsyncIterator[Publisher]:
    """Let handlers publish to Mosquitto, which runs."""
    mosquitto.start()
    made = Publisher(connector(options(mosquitto.url, clean_start=True)), mosquitto.url)
    use_publisher(made)
    yield made
    use_publisher(None)
    await made.stop()
    mosquitto.stop()


@pytest.fixture
async def heard(mosquitto: Mosquitto, publisher: Publisher) -> AsyncIterator[set[bytes]]:
    """Give the bodies that another client hears."""
    recorder, bodies = Recorder(), set[bytes]()
    recorder.receive = lambda message: bodies.add(message.body)  # type: ignore[method-assign]
    hears = session.Session(connector(options(mosquitto.url)), mosquitto.url, [Subscription("out", 1)])
    hears.start(recorder)
    await soon(hears.connected())
    yield bodies
    await hears.stop()


def storing(**how: Any) -> Router:
    router = Router()

    async def store(context: Context[Any]) -> None:
        # A run that is not atomic stores once more when it runs again.
        await Model.create(Meter, serial=f"{context['payload']}/{token_hex(8)}")
        # Exactly-once routes have context["publish"] for that, which waits for nobody. This one may be called anywhere.
        send = publish if how["delivery"] == "exactly_once" else context["publish"]
        await send("out", str(context["payload"]), qos=1)

    async def store_all(contexts: list[Context[Any]]) -> None:
        for context in contexts:
            await store(context)

    router.on("t/<n>", store_all if "batch" in how else store, timeout=TIMEOUT, **how)
    return router


@pytest.mark.parametrize(
    "how",
    [
        {"delivery": "at_least_once"},
        {"delivery": "at_least_once", "atomic": False},
        {"delivery": "at_least_once", "batch": 5},
        {"delivery": "exactly_once"},
    ],
    ids=str,
)
@pytest.mark.parametrize("away", ["stopped", "frozen"])
async def test_messages_wait_for_the_broker(
    how: dict[str, Any],
    away: str,
    database: str,
    mosquitto: Mosquitto,
    publisher: Publisher,
    heard: set[bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    await soon(publisher.send(Publication("out", b"before", qos=1)))
    async with running(storing(**how), exactly_once=True, publisher=publisher) as worker:
        await asyncio.to_thread(mosquitto.stop if away == "stopped" else mosquitto.freeze)
        for number in range(MESSAGES):
            await worker.send(f"t/{number}", b"%d" % number)
        # Several attempts are cut off.
        await until(lambda: "the broker does not answer. Messages wait, unacknowledged" in caplog.text)
        await asyncio.sleep(3 * TIMEOUT)
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (0, 0)
        assert not worker.broker.acknowledged
        await asyncio.to_thread(mosquitto.start if away == "stopped" else mosquitto.thaw)
        await soon(worker.settled(), 30)
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (MESSAGES, 0)
        await until(lambda: heard >= {b"%d" % number for number in range(MESSAGES)})
    assert f"the broker did not answer within the {TIMEOUT:g} s that the handler has" in caplog.text
    rows = [int(serial.partition("/")[0]) for (serial,) in await fetch(database, "SELECT serial FROM meters")]
    assert set(rows) == set(range(MESSAGES))
    assert how.get("atomic") is False or len(rows) == MESSAGES


async def test_a_handler_that_is_slow_beside_the_broker_is_cut_off_for_good(
    database: str, mosquitto: Mosquitto, publisher: Publisher
) -> None:
    router = Router()

    @router.on("t/<n>", timeout=TIMEOUT)
    async def sleep(context: Context[Any]) -> None:
        await context["publish"]("out", "it begins", qos=1)
        await asyncio.sleep(60)

    async with running(router, publisher=publisher) as worker:
        await worker.send("t/1")
        await soon(worker.settled(), 30)
        assert worker.ledger.dead_lettered == 1
        assert "HandlerTimeoutError" in worker.dead_letters.letters[0].error
