"""Topics of the devices."""

from __future__ import annotations

from app.controllers.sensor_controller import SensorController
from core.router import Router

router = Router()

with router.group("devices/<device_id>", qos=1) as devices:
    devices.on("data", SensorController.handle_sensor_data)
    devices.on("history", SensorController.get_device_history, reply="devices/<device_id>/history/result")
