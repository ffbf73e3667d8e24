"""Every code block of the specification, read from it and run as it stands."""

from __future__ import annotations

import ast
import inspect
import logging
import os
import re
import sys
import time
import types
import warnings
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    DateTime,
    Float,
    ForeignKey,
    Integer,
    String,
    and_,
    desc,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import registry, relationship
from sqlalchemy.pool import QueuePool

from core.controller import Controller
from core.database.current import DATABASE, configured
from core.model import Base, Model
from core.runtime import current

# Each block has models of its own, of the same names.
pytestmark = pytest.mark.filterwarnings("ignore:This declarative base already contains")

_SHARED = Path(os.environ.get("ROUTEMQ_SHARED", Path(__file__).parents[2].parent / "shared"))
_FILE = _SHARED / "spec" / "database-operations.md"


def blocks() -> list[str]:
    if not _FILE.is_file():
        if os.environ.get("ROUTEMQ_REQUIRE_SPEC"):
            pytest.fail(f"{_FILE} is not there, and ROUTEMQ_REQUIRE_SPEC is set")
        pytest.skip(f"the specification is not there: {_FILE}")
    return re.findall(r"^```python\n(.*?)^```", _FILE.read_text(), re.DOTALL | re.MULTILINE)


class Models:
    """Models as the specification takes them to be; ``readings_of`` says what a reading's device_id refers to."""

    def __init__(self, *, key: str = "id", readings_of: str = "text") -> None:
        class Local(Base):
            __abstract__ = True
            registry = registry()
            metadata = registry.metadata

        class User(Local):
            __tablename__ = "users"
            id = Column(String(64), primary_key=True)
            name = Column(String(64))

        class Device(Local):
            __tablename__ = "devices"
            if key == "id":
                id = Column(Integer, primary_key=True)
                device_id = Column(String(64), unique=True, nullable=False)
            else:
                device_id = Column(String(64), primary_key=True)
            name = Column(String(64))
            email = Column(String(64), unique=True)
            device_type = Column(String(64))
            status = Column(String(64))
            last_seen = Column(Float)
            user_id = Column(String(64), ForeignKey("users.id"))
            created_at = Column(DateTime, server_default=func.now())
            updated_at = Column(DateTime)
            user = relationship(User)

        class SensorReading(Local):
            __tablename__ = "sensor_readings"
            id = Column(Integer, primary_key=True)
            sensor_id = Column(String(64))
            device_id = Column(Integer, ForeignKey("devices.id")) if readings_of == "row" else Column(String(64))
            sensor_type = Column(String(64))
            value = Column(Float)
            unit = Column(String(64))
            timestamp = Column(Float)

        class TransferLog(Local):
            __tablename__ = "transfers"
            id = Column(Integer, primary_key=True)
            device_id = Column(String(64))
            from_user_id = Column(String(64))
            to_user_id = Column(String(64))
            timestamp = Column(Float)

        if readings_of == "row":
            Device.sensor_readings = relationship(SensorReading)
        self.User, self.Device, self.SensorReading, self.TransferLog = User, Device, SensorReading, TransferLog
        self.metadata = Local.metadata


class Block:
    """One block, run in a namespace with the imports that the specification takes for granted."""

    def __init__(self, source: str, models: Models) -> None:
        self.models = models
        self.names: dict[str, Any] = {
            "Model": Model,
            "Controller": Controller,
            "time": time,
            "datetime": datetime,
            "logger": logging.getLogger("specification"),
            "Device": models.Device,
            "SensorReading": models.SensorReading,
            "TransferLog": models.TransferLog,
            "create_async_engine": create_async_engine,
            **{one.__name__: one for one in (select, update, insert, and_, or_, desc)},
            "func": func,
        }
        self.source = source

    async def run(self) -> Block:
        code = compile(self.source, str(_FILE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            made = eval(code, self.names)
            if inspect.isawaitable(made):
                await made
        return self

    async def call(self, name: str, *arguments: object, **named: object) -> Any:
        with warnings.catch_warnings():
            # The specification says datetime.utcnow(), which Python 3.12 deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            return await self.names[name](*arguments, **named)

    async def readings(self, *values: dict[str, Any]) -> None:
        for one in values:
            await Model.create(self.models.SensorReading, **one)

    async def devices(self, *values: dict[str, Any]) -> None:
        for one in values:
            await Model.create(self.models.Device, **one)

    async def rows(self, model: str) -> list[Any]:
        return await Model.where(getattr(self.models, model), order_by=inspect_key(getattr(self.models, model)))


def inspect_key(model: Any) -> object:
    return next(iter(model.__table__.primary_key))


# -- one check for each block, in the order of the blocks ---------------------------------------------------------------


async def create(block: Block, out: str) -> None:
    (row,) = await block.rows("SensorReading")
    assert (row.sensor_id, row.value, row.unit) == ("temp_001", 25.6, "celsius")
    assert f"Created reading with ID: {row.id}" in out


async def create_with_a_session(block: Block, out: str) -> None:
    device = await block.call("create_device")
    assert device.id is not None
    assert [row.device_id for row in await block.rows("Device")] == ["device_123"]


async def create_in_bulk(block: Block, out: str) -> None:
    made = await block.call("create_multiple_readings", [{"sensor_id": f"s{n}", "value": n} for n in range(5)])
    assert [row.sensor_id for row in made] == ["s0", "s1", "s2", "s3", "s4"]
    assert len(await block.rows("SensorReading")) == 5


async def find(block: Block, out: str) -> None:
    assert out == ""
    await block.devices({"device_id": "a", "name": "Boiler"})
    await block.run()
    assert block.names["device"].name == "Boiler"


async def all_rows(block: Block, out: str) -> None:
    await block.devices({"device_id": "a", "status": "online"}, {"device_id": "b", "status": "offline"})
    await block.run()
    assert {row.device_id for row in block.names["all_devices"]} == {"a", "b"}


async def queries(block: Block, out: str) -> None:
    await block.devices({"device_id": "a", "status": "online"}, {"device_id": "b", "status": "offline"})
    assert [row.device_id for row in await block.call("get_online_devices")] == ["a"]
    now = time.time()
    await block.readings(
        {"sensor_id": "s", "timestamp": now - 60},
        {"sensor_id": "s", "timestamp": now - 10},
        {"sensor_id": "s", "timestamp": now - 90_000},
        {"sensor_id": "other", "timestamp": now},
    )
    recent = await block.call("get_recent_readings", "s")
    assert [row.timestamp for row in recent] == [now - 10, now - 60]
    assert len(await block.call("get_recent_readings", "s", hours=48)) == 3


async def statistics(block: Block, out: str) -> None:
    await block.devices(*({"device_id": f"d{n}", "status": "online" if n < 3 else "offline"} for n in range(5)))
    assert await block.call("get_device_statistics") == {"online": 3, "offline": 2}
    await block.readings(*({"sensor_id": "s", "value": n, "timestamp": n} for n in range(10)))
    averages = await block.call("get_sensor_averages", "s", 2, 4)
    assert averages == {"average": 3.0, "minimum": 2.0, "maximum": 4.0, "count": 3}
    nothing = await block.call("get_sensor_averages", "none", 2, 4)
    assert nothing == {"average": 0, "minimum": 0, "maximum": 0, "count": 0}


async def update_one(block: Block, out: str) -> None:
    await block.devices({"device_id": "a", "status": "offline"})
    device = await block.call("update_device_status", "a", "online")
    assert device.status == "online"
    (row,) = await block.rows("Device")
    assert row.status == "online"
    assert row.last_seen > 0
    assert await block.call("update_device_status", "none", "online") is None


async def update_many(block: Block, out: str) -> None:
    await block.devices(*({"device_id": one, "status": "online"} for one in "abc"))
    await block.call("mark_devices_offline", ["a", "c"])
    assert [row.status for row in await block.rows("Device")] == ["offline", "online", "offline"]


async def update_by_condition(block: Block, out: str) -> None:
    now = time.time()
    await block.devices(
        {"device_id": "stale", "status": "online", "last_seen": now - 3600},
        {"device_id": "fresh", "status": "online", "last_seen": now},
        {"device_id": "gone", "status": "offline", "last_seen": now - 3600},
    )
    assert await block.call("update_stale_devices") == 1
    assert [row.status for row in await block.rows("Device")] == ["offline", "online", "offline"]


async def delete_one(block: Block, out: str) -> None:
    await block.devices({"device_id": "a"}, {"device_id": "b"})
    assert await block.call("delete_device", "a") is True
    assert await block.call("delete_device", "a") is False
    assert [row.device_id for row in await block.rows("Device")] == ["b"]


async def delete_many(block: Block, out: str) -> None:
    now = time.time()
    await block.readings({"timestamp": now}, {"timestamp": now - 40 * 86_400}, {"timestamp": now - 50 * 86_400})
    assert await block.call("delete_old_readings") == 2
    assert [row.timestamp for row in await block.rows("SensorReading")] == [now]


async def load_related(block: Block, out: str) -> None:
    await Model.create(block.models.User, id="u", name="Ann")
    device = await Model.create(block.models.Device, device_id="a", user_id="u")
    await block.readings({"device_id": device.id, "value": 1}, {"device_id": device.id, "value": 2})
    loaded = await block.call("get_device_with_readings", "a")
    assert sorted(reading.value for reading in loaded.sensor_readings) == [1, 2]
    (with_user,) = await block.call("get_devices_with_users")
    assert with_user.user.name == "Ann"


async def create_related(block: Block, out: str) -> None:
    device = await block.call("create_device_with_readings")
    readings = await block.rows("SensorReading")
    assert [(row.device_id, row.sensor_type) for row in readings] == [(device.id, "temperature"), (device.id, "humidity")]


async def transaction(block: Block, out: str) -> None:
    for user in ("old", "new"):
        await Model.create(block.models.User, id=user)
    await block.devices({"device_id": "a", "user_id": "old"})
    device = await block.call("transfer_device_ownership", "a", "old", "new")
    assert device.user_id == "new"
    with pytest.raises(ValueError, match="not owned"):
        await block.call("transfer_device_ownership", "a", "old", "new")
    (row,) = await block.rows("Device")
    assert row.user_id == "new"
    assert row.updated_at is not None
    (transfer,) = await block.rows("TransferLog")
    assert (transfer.from_user_id, transfer.to_user_id) == ("old", "new")


async def context_manager(block: Block, out: str) -> None:
    await block.devices({"device_id": "a", "status": "online"}, {"device_id": "b", "status": "online"})
    await block.call("update_multiple_devices")
    assert [row.status for row in await block.rows("Device")] == ["maintenance", "maintenance"]
    with pytest.raises(RuntimeError):
        async with block.names["get_db_session"]() as session:
            (await session.get(block.models.Device, 1)).status = "lost"
            raise RuntimeError
    assert [row.status for row in await block.rows("Device")] == ["maintenance", "maintenance"]


async def pagination(block: Block, out: str) -> None:
    await block.readings(*({"sensor_id": "s", "timestamp": n} for n in range(25)))
    page = await block.call("get_readings_paginated", "s", page=3, per_page=10)
    assert [row.timestamp for row in page.pop("readings")] == [4, 3, 2, 1, 0]
    assert page == {"total": 25, "page": 3, "per_page": 10, "total_pages": 3}


async def filtering(block: Block, out: str) -> None:
    await block.devices(
        {"device_id": "a", "name": "Boiler North", "status": "online", "device_type": "x"},
        {"device_id": "b", "name": "boiler south", "status": "offline", "device_type": "x"},
        {"device_id": "c", "name": "Pump", "status": "online", "device_type": "y"},
    )

    async def found(**filters: object) -> list[str]:
        return [row.device_id for row in await block.call("search_devices", filters)]

    assert sorted(await found()) == ["a", "b", "c"]
    assert await found(status="online", device_type="x") == ["a"]
    assert await found(name_search="boiler", order_by="device_id", order_direction="asc") == ["a", "b"]
    assert await found(order_by="name", order_direction="desc", device_type="y") == ["c"]
    assert await found(created_after=datetime(2999, 1, 1)) == []


async def controller(block: Block, out: str) -> None:
    alerts: list[int] = []

    async def check_sensor_alerts(self: object, reading: Any) -> None:
        alerts.append(reading.id)

    def context(payload: dict[str, Any]) -> dict[str, Any]:
        return {"payload": payload, "params": {"device_id": "meter-1"}}

    sensors = type("Sensors", (block.names["SensorController"],), {"check_sensor_alerts": check_sensor_alerts})()
    first = await sensors.handle_sensor_data(context({"type": "temperature", "value": 21.5, "unit": "C"}))
    assert first["status"] == "success"
    assert alerts == [first["reading_id"]]
    await sensors.handle_sensor_data(context({"value": 22.5}))
    assert (await sensors.handle_sensor_data(context({})))["status"] == "error"
    assert [row.value for row in await block.rows("SensorReading")] == [21.5, 22.5]
    (device,) = await block.rows("Device")
    assert (device.device_id, device.status) == ("meter-1", "online")
    history = await sensors.get_device_history(context({"hours": 1}))
    assert [reading["value"] for reading in history["readings"]] == [21.5, 22.5]
    assert set(history["readings"][0]) == {"id", "sensor_id", "device_id", "sensor_type", "value", "unit", "timestamp"}


async def safe_operation(block: Block, out: str) -> None:
    await block.devices({"device_id": "a"})
    done = await block.call("safe_database_operation")
    assert done["status"] == "success"
    assert [row.device_id for row in done["data"]] == ["a"]
    in_use = current()[DATABASE]
    database, in_use.database = in_use.database, None
    try:
        assert (await block.call("safe_database_operation"))["status"] == "warning"
        assert await Model.get_session() is None
    finally:
        in_use.database = database


async def constraint_violation(block: Block, out: str) -> None:
    done = await block.call("create_device_safe", {"device_id": "a", "name": "first"})
    assert done["status"] == "created"
    again = await block.call("create_device_safe", {"device_id": "a", "name": "second"})
    assert again == {"status": "error", "message": "Device ID already exists"}
    assert [row.name for row in await block.rows("Device")] == ["first"]


def size_and_overflow(engine: AsyncEngine | None) -> tuple[int, int]:
    assert engine is not None
    assert isinstance(engine.pool, QueuePool)
    return engine.pool.size(), engine.pool._max_overflow


async def pooling(block: Block, out: str) -> None:
    shown = block.names["Model"]
    assert shown is not Model
    shown.configure("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    assert isinstance(shown._engine, AsyncEngine)
    assert size_and_overflow(shown._engine) == (10, 20)
    await shown._engine.dispose()
    Model.configure("postgresql+asyncpg://nobody@127.0.0.1:1/nothing", pool_size=3, max_overflow=4, pool_timeout=5)
    assert size_and_overflow(Model._engine) == (3, 4)


async def batches(block: Block, out: str) -> None:
    await block.call("batch_insert_readings", [{"sensor_id": f"s{n}", "value": n} for n in range(100)])
    assert len(await block.rows("SensorReading")) == 100
    await block.devices({"device_id": "a", "status": "x"}, {"device_id": "b", "status": "x"})
    await block.call("batch_update_devices", [{"device_id": "a", "status": "y"}, {"device_id": "b", "status": "z"}])
    assert [row.status for row in await block.rows("Device")] == ["y", "z"]


Check = Callable[[Block, str], Awaitable[None]]
# Each block's first line, the check that holds it, and what its models are like.
CHECKS: tuple[tuple[str, Check, dict[str, str]], ...] = (
    ("from core.model import Model", create, {}),
    ("from core.model import Model", create_with_a_session, {}),
    ("async def create_multiple_readings(readings_data):", create_in_bulk, {}),
    ("# Find by ID", find, {}),
    ("# Get all records", all_rows, {}),
    ("from sqlalchemy.future import select", queries, {}),
    ("async def get_device_statistics():", statistics, {}),
    ("async def update_device_status(device_id: str, new_status: str):", update_one, {}),
    ("from sqlalchemy import update", update_many, {}),
    ("async def update_stale_devices():", update_by_condition, {}),
    ("async def delete_device(device_id: str):", delete_one, {}),
    ("from sqlalchemy import delete", delete_many, {}),
    ("from sqlalchemy.orm import selectinload, joinedload", load_related, {"readings_of": "row"}),
    ("async def create_device_with_readings():", create_related, {"readings_of": "row"}),
    ("async def transfer_device_ownership(device_id: str, from_user_id: str, to_user_id: str):", transaction, {}),
    ("from contextlib import asynccontextmanager", context_manager, {}),
    (
        "async def get_readings_paginated(sensor_id: str, page: int = 1, per_page: int = 100):",
        pagination,
        {},
    ),
    ("async def search_devices(filters: dict):", filtering, {}),
    ("from core.controller import Controller", controller, {}),
    ("async def safe_database_operation():", safe_operation, {}),
    ("from sqlalchemy.exc import IntegrityError", constraint_violation, {}),
    ("# Configure connection pool in Model class", pooling, {}),
    ("async def batch_insert_readings(readings_data: list):", batches, {"key": "device_id"}),
)


def test_every_block_has_its_check() -> None:
    firsts = [next(line for line in block.splitlines() if line.strip()) for block in blocks()]
    assert firsts == [first for first, _, _ in CHECKS]


@pytest.mark.parametrize("number", range(len(CHECKS)), ids=[check.__name__ for _, check, _ in CHECKS])
async def test_block(
    number: int, database: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = blocks()[number]
    _, check, like = CHECKS[number]
    models = Models(**like)
    for name, model in (("device", models.Device), ("sensor_reading", models.SensorReading)):
        module = types.ModuleType(f"app.models.{name}")
        setattr(module, model.__name__, model)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    await configured().create_tables(models.metadata)
    block = Block(source, models)
    await block.run()
    await check(block, capsys.readouterr().out)
