"""Topics of the meters, and of the people who operate them."""

from __future__ import annotations

from app.controllers.meter_controller import MeterController
from app.payloads import MeterReading, Switch
from core.router import Router

router = Router()
router.on("meters/<serial>/readings", MeterController.store, schema=MeterReading, codec="cbor", delivery="exactly_once")
router.on(
    "operators/meters/<serial>/relay",
    MeterController.switch,
    schema=Switch,
    reply="operators/meters/<serial>/relay/result",
    reply_errors=True,
)
