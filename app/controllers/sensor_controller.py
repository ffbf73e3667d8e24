"""Stores the readings of devices, and answers with their history."""

from __future__ import annotations

import time
from typing import Any

from app.models.device import Device
from app.models.sensor_reading import SensorReading
from core.context import Context
from core.controller import Controller
from core.model import Model


class SensorController(Controller):
    async def handle_sensor_data(self, context: Context[dict[str, Any]]) -> dict[str, Any]:
        """Store one reading.

        A device sends it like this: ``{"type": "temperature", "value": 21.5, "unit": "celsius", "timestamp": 1767225600}``.
        """
        device_id = context["params"]["device_id"]
        payload = context["payload"]
        await Model.upsert(Device, on=["device_id"], device_id=device_id, status="online", last_seen=time.time())
        reading = await Model.create(
            SensorReading,
            device_id=device_id,
            sensor_type=payload.get("type", "unknown"),
            value=payload["value"],
            unit=payload.get("unit"),
            timestamp=payload.get("timestamp", time.time()),
        )
        return {"status": "success", "reading_id": reading.id}

    async def get_device_history(self, context: Context[dict[str, Any]]) -> dict[str, Any]:
        """Answer with the readings of the last ``hours`` (default 24)."""
        device_id = context["params"]["device_id"]
        hours = float(context["payload"].get("hours", 24))
        readings = await Model.where(
            SensorReading,
            SensorReading.device_id == device_id,
            SensorReading.timestamp >= time.time() - hours * 3600,
            order_by=SensorReading.timestamp,
            limit=1000,
        )
        return {"device_id": device_id, "hours": hours, "readings": [reading.to_dict() for reading in readings]}
