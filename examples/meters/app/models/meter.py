"""The meters that have reported."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import DateTime, String
from sqlalchemy.orm import Mapped, mapped_column

from core.model import Base


class Meter(Base):
    __tablename__ = "meters"

    id: Mapped[int] = mapped_column(primary_key=True)
    serial: Mapped[str] = mapped_column(String(64), unique=True)
    relay: Mapped[str | None] = mapped_column(String(8))
    last_seen: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
