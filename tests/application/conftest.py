"""Workers that are stopped whatever happens, and a client beside them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.publisher import Publisher
from core.transport.connect import connector
from core.transport.options import parse_url
from tests.support.mosquitto import Mosquitto, free_pair
from tests.support.worker import Project, Projects, Publishers, Worker


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Projects]:
    """Give a function that makes projects on an embedded broker and SQLite; their workers are killed at the end."""
    made: list[Worker] = []
    start = Project.start

    def starting(self: Project, *arguments: str) -> Worker:
        worker = start(self, *arguments)
        made.append(worker)
        return worker

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(Project, "start", starting)

    def make(routers: dict[str, str] | None = None, models: dict[str, str] | None = None, **variables: object) -> Project:
        one = Project(tmp_path / f"project-{len(list(tmp_path.glob('project-*')))}", routers, models)
        return one.set(**{"MQTT_URL": f"embedded://127.0.0.1:{free_pair()}"} | variables)

    yield make
    for worker in made:
        if worker.process.poll() is None:
            worker.kill()
    monkeypatch.undo()
    if getattr(request.node, "failed", False):
        for worker in made:
            logging.getLogger("tests").error("%s", worker.output)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "mosquitto").start()
    yield broker
    broker.stop()


@pytest.fixture
async def publisher() -> AsyncIterator[Publishers]:
    """Give a function that gives a publisher at the broker of a project, or of a URL."""
    made: list[Publisher] = []

    async def make(at: Project | str) -> Publisher:
        url = at if isinstance(at, str) else at.environment["MQTT_URL"]
        options = parse_url(url)
        if options.scheme == "embedded":
            options = replace(options, scheme="mqtt", port=options.port + 1)
        one = Publisher(connector(replace(options, client_id=f"test-{id(made)}-{len(made)}", clean_start=True)), "test")
        made.append(one)
        return one

    yield make
    for one in made:
        await one.stop()
