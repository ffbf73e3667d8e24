"""What meters and operators send."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class MeterReading(BaseModel):
    """One reading. A meter sends it in CBOR."""

    model_config = ConfigDict(extra="forbid")

    kwh: float = Field(ge=0, description="The counter, in kilowatt-hours.", examples=[1234.5])
    taken_at: datetime = Field(
        description="When the counter was read: a date of CBOR (tag 0 or 1), or seconds since the epoch."
    )
    voltage: float | None = Field(default=None, gt=0, lt=1000, description="The voltage, in volts.", examples=[230.4])


class Switch(BaseModel):
    """What an operator wants a meter's relay to do."""

    relay: Literal["on", "off"]
