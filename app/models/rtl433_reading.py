"""What rtl_433, a receiver for cheap radio sensors, has heard."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, DateTime, String, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from core.model import Base


class Rtl433Reading(Base):
    __tablename__ = "rtl433_readings"

    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(String(128), index=True)
    device_id: Mapped[str] = mapped_column(String(128))
    # Models of sensors send these fields in different types. `message` has them as they came.
    channel: Mapped[str | None] = mapped_column(String(64))
    battery_ok: Mapped[float | None]
    temperature_C: Mapped[float | None]
    humidity: Mapped[float | None]
    message: Mapped[dict[str, Any]] = mapped_column(JSON().with_variant(JSONB(), "postgresql"))
    received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
