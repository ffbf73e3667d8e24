"""What the meters have counted."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import DateTime, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from core.model import Base


class Reading(Base):
    __tablename__ = "readings"
    __table_args__ = (Index("ix_readings_serial_taken_at", "serial", "taken_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    serial: Mapped[str] = mapped_column(String(64))
    kwh: Mapped[float]
    voltage: Mapped[float | None]
    taken_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
