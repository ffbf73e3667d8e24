"""Stores what rtl_433 publishes (https://github.com/merbanan/rtl_433)."""

from __future__ import annotations

from typing import Any

from app.models.rtl433_reading import Rtl433Reading
from core.context import Context
from core.controller import Controller
from core.model import Model


class Rtl433Controller(Controller):
    async def handle_reading(self, context: Context[dict[str, Any]]) -> None:
        """Store what a sensor has sent."""
        message = context["payload"]
        params = context["params"]
        await Model.create(
            Rtl433Reading,
            model=str(message.get("model", params["model"])),
            device_id=params["device_id"],
            channel=text(message.get("channel")),
            battery_ok=number(message.get("battery_ok")),
            temperature_C=number(message.get("temperature_C")),
            humidity=number(message.get("humidity")),
            message=message,
        )


def text(value: object) -> str | None:
    """Return a field as text, whatever type this model of sensor sends."""
    return None if value is None else str(value)


def number(value: object) -> float | None:
    """Return a field as a number, or None if this model of sensor sends something else. `message` has what it sent."""
    return float(value) if isinstance(value, int | float) else None
