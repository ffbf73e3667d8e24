"""Streams through workers that meet faults. Each is a row of the table that ends the report."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import pytest

from core.transport.brokers.embedded import EmbeddedBroker
from core.transport.options import parse_url
from tests.application.conftest import mosquitto, project, publisher  # noqa: F401 - fixtures
from tests.support.mosquitto import MOSQUITTO, Mosquitto, free_pair
from tests.support.postgres import Postgres
from tests.support.stream import MODEL, ROUTER, SOAK, Account, Stream, ledger
from tests.support.worker import Projects, Worker


@pytest.fixture(params=["5", "3.1.1", *(["aiomqtt 5"] if SOAK else [])])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL of the test's own, to be stopped and killed."""
    server = Postgres()
    yield server
    server.start()


class OutlivingBroker(Protocol):
    """A broker that outlives the worker: ``url`` is what the worker gets."""

    @property
    def url(self) -> str: ...


@dataclass
class Embedded:
    """The embedded broker as a process of the test's own, which the worker finds at its URL."""

    port: int

    @property
    def url(self) -> str:
        return f"embedded://127.0.0.1:{self.port}"


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[OutlivingBroker]:
    """Mosquitto, or the embedded broker where Mosquitto is not installed."""
    if MOSQUITTO is not None or os.environ.get("ROUTEMQ_REQUIRE_MOSQUITTO"):
        server = Mosquitto(tmp_path / "mosquitto").start()
        yield server
        server.stop()
        return
    one = Embedded(free_pair())
    own = EmbeddedBroker(parse_url(one.url))
    await own.start()
    yield one
    await own.stop()


class Streaming:
    """Makes projects and streams, and accounts for them in the report; ``version`` is that of MQTT, with the transport."""

    def __init__(self, projects: Projects, version: str, record: Callable[[str, object], None]) -> None:
        self._projects = projects
        self._version = version
        self._record = record
        self._streams: list[Stream] = []

    def __call__(
        self,
        broker_url: str,
        *,
        router: str = ROUTER,
        publish_to: str | None = None,
        rate: float = 400,
        kind: type[Stream] = Stream,
        **variables: object,
    ) -> Stream:
        *transport, number = self._version.split()
        variables = {"MQTT_URL": broker_url, "MQTT_VERSION": number, "MQTT_KEEPALIVE": 5, "MQTT_CLIENT_ID": "w"} | variables
        variables["MQTT_TRANSPORT"] = "".join(transport) or "auto"
        one = self._projects({"numbers": router}, {"number": MODEL}, **variables)
        stream = kind(publish_to or broker_url, one, rate, number)
        self._streams.append(stream)
        return stream

    async def account(self, stream: Stream, worker: Worker, what: str, times: int, *, repeats: bool = True) -> Account:
        await stream.stop()
        found = await stream.settled()
        assert await worker.stop() == 0, worker.output[-3000:]
        assert ledger(worker)
        embedded = ", embedded" if stream.broker_url.startswith("embedded") else ""
        self._record("fault", {"fault": what, "MQTT": self._version + embedded, "times": times} | asdict(found))
        assert found.sent > 100
        assert (found.lost, found.disordered) == (0, 0), f"{found}\n{worker.output[-3000:]}"
        assert repeats or not found.repeated, found
        return found

    async def close(self) -> None:
        for stream in self._streams:
            await stream.close()


@pytest.fixture
async def streaming(
    project: Projects,  # noqa: F811
    version: str,
    record_property: Callable[[str, object], None],
) -> AsyncIterator[Streaming]:
    made = Streaming(project, version, record_property)
    yield made
    await made.close()


async def a_moment(least: float = 0.2, most: float = 1.5) -> None:
    await asyncio.sleep(random.uniform(least, most))
