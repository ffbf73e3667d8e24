"""Two applications in one process share nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bootstrap.app import Application
from config.settings import Settings
from core.codecs import register
from core.context import Context
from core.controller import Controller
from core.database.current import configured
from core.model import Model
from core.mqtt.publication import Publication
from core.publisher import Publisher, publish
from core.router import Router
from core.runtime import Runtime
from core.transport.brokers.embedded import find_running
from core.transport.connect import connector
from tests.support.models import Meter, Plain
from tests.support.mosquitto import free_pair
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class Scaled:
    """Numbers, in units of ``unit``."""

    def __init__(self, unit: float) -> None:
        self._unit = unit

    def decode(self, body: bytes) -> float:
        return float(body) * self._unit

    def encode(self, value: Any) -> bytes:
        return str(value / self._unit).encode()


class Meters(Controller):
    def __init__(self) -> None:
        self.seen: list[float] = []

    async def store(self, context: Context[float]) -> None:
        self.seen.append(context["payload"])
        await Model.create(Meter, serial=context["params"]["serial"], kwh=context["payload"])
        # By the function that finds the publisher in use, not by the context's.
        await publish("stored", {"serial": context["params"]["serial"]}, qos=1)

    async def count(self, context: Context[Any]) -> None:
        await Model.create(Meter, serial=f"told {context['payload']['serial']}", kwh=0.0)


async def started(unit: float, tmp_path: Path) -> Application:
    register("number", Scaled(unit))
    router = Router()
    router.on("meters/<serial>", Meters.store, codec="number")
    router.on("stored", Meters.count)
    url = f"sqlite+aiosqlite:///{tmp_path}/{unit}.db"
    settings = Settings(mqtt_url=f"embedded://127.0.0.1:{free_pair()}", mqtt_client_id="one", database_url=url)
    application = Application(settings, router, lambda _: None)
    await application.start()
    await configured().create_tables(Plain.metadata)
    return application


async def send(application: Application, serial: str, body: bytes) -> None:
    options = await find_running(application.settings.connect_options())
    publisher = Publisher(connector(replace(options, client_id="device", clean_start=True)), "test")
    await publisher.send(Publication(f"meters/{serial}", body, 1))
    await publisher.stop()


async def rows(application: Application) -> set[tuple[str, float]]:
    with application.runtime.used():
        return {(str(meter.serial), meter.kwh or 0.0) for meter in await Model.all(Meter)}


async def test_two_applications_live_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    applications = []
    try:
        for unit in (1.0, 1000.0):
            with Runtime().used():
                applications.append(await started(unit, tmp_path))
        one, other = applications
        for application, bodies in ((one, (b"1", b"2")), (other, (b"3",))):
            for number, body in enumerate(bodies):
                await send(application, f"m{number}", body)
        await until(lambda: all(a.engine is not None and not a.engine.ledger.in_hand for a in applications))
        await until(lambda: one.engine is not None and one.engine.ledger.done == 4)
        await until(lambda: other.engine is not None and other.engine.ledger.done == 2)
        assert await rows(one) == {("m0", 1.0), ("m1", 2.0), ("told m0", 0.0), ("told m1", 0.0)}
        assert await rows(other) == {("m0", 3000.0), ("told m0", 0.0)}
        assert not Model._is_enabled
    finally:
        for application in applications:
            await application.stop(asyncio.Event())
