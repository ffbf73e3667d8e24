"""A Mosquitto, devices on paho, and this process's publisher."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from core.publisher import Publisher, use_publisher
from core.session import session
from core.transport.connect import connector
from tests.application.conftest import project  # noqa: F401 - a fixture
from tests.support.device import Devices
from tests.support.mosquitto import Mosquitto
from tests.transport.conftest import options


class MakeDevices(Protocol):
    """Makes devices that speak a version of MQTT."""

    def __call__(self, version: str = "5") -> Devices: ...


class Publishing(Protocol):
    """Makes the publisher on which this process's requests go; ``version`` is that of MQTT, with the transport."""

    def __call__(self, version: str = "5") -> Publisher: ...


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "mosquitto").start()
    yield broker
    broker.stop()


@pytest.fixture
def devices(broker: Mosquitto) -> Iterator[MakeDevices]:
    """Give a function that makes devices."""
    made: list[Devices] = []

    def make(version: str = "5") -> Devices:
        made.append(Devices(broker.port, version))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
async def publishing(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Publishing]:
    """Give a function that makes the publisher on which this process's requests go."""
    monkeypatch.setattr(session, "FIRST_PAUSE", 0.02)
    made: list[Publisher] = []

    def make(version: str = "5") -> Publisher:
        chosen = options(broker.url, version, clean_start=True)
        made.append(Publisher(connector(chosen), chosen.address, "routemq/test/responses"))
        use_publisher(made[-1])
        return made[-1]

    yield make
    use_publisher(None)
    for one in made:
        await one.stop()
