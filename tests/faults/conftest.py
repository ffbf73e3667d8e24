"""The table of faults that ends the report."""

from __future__ import annotations

import asyncio
import random
from dataclasses import asdict

import pytest

from tests.application.conftest import mosquitto, project, publisher  # noqa: F401 - fixtures
from tests.support.postgres import Postgres
from tests.support.stream import MODEL, ROUTER, SOAK, Account, Stream, ledger


@pytest.fixture(params=["5", "3.1.1", *(["aiomqtt 5"] if SOAK else [])])
def version(request):
    return request.param


@pytest.fixture
def own_postgres():
    """A PostgreSQL of the test's own, to be stopped and killed."""
    server = Postgres()
    yield server
    server.start()


@pytest.fixture
async def streaming(project, version, record_property):  # noqa: F811
    """Give a function that makes a project and a stream, and one that accounts for it in the report."""
    streams: list[Stream] = []

    def make(broker_url, *, router=ROUTER, publish_to=None, rate=400, **variables) -> Stream:
        *transport, number = version.split()
        variables = {"MQTT_URL": broker_url, "MQTT_VERSION": number, "MQTT_KEEPALIVE": 5, "MQTT_CLIENT_ID": "w"} | variables
        variables["MQTT_TRANSPORT"] = "".join(transport) or "auto"
        one = project({"numbers": router}, {"number": MODEL}, **variables)
        stream = Stream(publish_to or broker_url, one, rate, number)
        streams.append(stream)
        return stream

    async def account(stream: Stream, worker, what: str, times: int, *, repeats: bool = True) -> Account:
        await stream.stop()
        found = await stream.settled()
        assert await worker.stop() == 0, worker.output[-3000:]
        assert ledger(worker)
        record_property("fault", {"fault": what, "MQTT": version, "times": times} | asdict(found))
        assert found.sent > 100
        assert (found.lost, found.disordered) == (0, 0), f"{found}\n{worker.output[-3000:]}"
        assert repeats or not found.repeated, found
        return found

    make.account = account
    yield make
    for stream in streams:
        for task in stream._tasks:
            task.cancel()
        if stream._publisher is not None:
            await stream._publisher.stop()


async def a_moment(least: float = 0.2, most: float = 1.5) -> None:
    await asyncio.sleep(random.uniform(least, most))


def pytest_terminal_summary(terminalreporter):
    rows = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == "fault"
    ]
    if not rows:
        return
    terminalreporter.section("faults")
    names = list(rows[0])
    widths = [max(len(name), *(len(str(row[name])) for row in rows)) for name in names]
    for row in [dict(zip(names, names, strict=True)), *rows]:
        terminalreporter.write_line(
            "  ".join(str(row[name]).ljust(width) for name, width in zip(names, widths, strict=True))
        )
