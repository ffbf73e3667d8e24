"""Models for tests, in every style that users write."""

from __future__ import annotations

import enum
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.orm import Mapped, MappedAsDataclass, deferred, mapped_column, registry, relationship

from core.model import Base, Model


class State(enum.Enum):
    ON = "on"
    OFF = "off"


_registry = registry()


class Plain(Base):
    """Tables apart from the example application's."""

    __abstract__ = True
    registry = _registry
    metadata = MetaData()


class Meter(Plain):
    __tablename__ = "meters"

    if TYPE_CHECKING:
        # Columns written without Mapped, as below, have no types.
        id: Mapped[int]
        serial: Mapped[str]
        kwh: Mapped[float | None]
        site: Mapped[str]
        created_at: Mapped[datetime]
        changed_at: Mapped[datetime | None]
        readings: Mapped[list[MeterReading]]
    else:
        id = Column(Integer, primary_key=True)
        serial = Column(String(32), unique=True, nullable=False)
        kwh = Column(Float)
        site = Column(String(32), server_default="cellar")
        created_at = Column(DateTime(timezone=True), server_default=func.now())
        changed_at = Column(DateTime(timezone=True), onupdate=lambda: datetime.now(UTC))
        readings = relationship("MeterReading", cascade="all, delete-orphan")


class MeterReading(Plain):
    __tablename__ = "meter_readings"

    id: Mapped[int] = mapped_column(primary_key=True)
    meter_id: Mapped[int] = mapped_column(ForeignKey("meters.id"))
    kwh: Mapped[float]


class Everything(Plain):
    __tablename__ = "everything"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    state: Mapped[State]
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    raw: Mapped[bytes] = mapped_column(LargeBinary)
    day: Mapped[date]
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    clock: Mapped[time]
    lasted: Mapped[timedelta] = mapped_column(Interval)
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    on: Mapped[bool] = mapped_column(Boolean, default=True)
    essay: Mapped[str | None] = deferred(mapped_column(Text))


class Pair(Plain):
    __tablename__ = "pairs"

    left: Mapped[str] = mapped_column(String(16), primary_key=True)
    right: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str | None]
    __table_args__ = (UniqueConstraint("note"),)


class PlainModel(Model):
    """As Plain, for children of Model."""

    __abstract__ = True
    registry = _registry
    metadata = Plain.metadata


class Odd(PlainModel):
    """A child of Model whose columns have the names of Model's calls."""

    __tablename__ = "odd_names"

    id: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[int]
    all: Mapped[str]
    update: Mapped[str]
    find: Mapped[int]
    create: Mapped[int] = mapped_column(default=7)
    session: Mapped[str | None]
    where: Mapped[str | None]
    delete: Mapped[bool | None]


class Point(MappedAsDataclass, Plain):
    __tablename__ = "points"

    id: Mapped[int] = mapped_column(init=False, primary_key=True)
    x: Mapped[int]
    y: Mapped[int] = mapped_column(default=0)


class Vehicle(Plain):
    __tablename__ = "vehicles"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}  # noqa: RUF012


class Truck(Vehicle):
    __tablename__ = "trucks"

    id: Mapped[int] = mapped_column(ForeignKey("vehicles.id"), primary_key=True)
    load: Mapped[float]
    __mapper_args__ = {"polymorphic_identity": "truck"}  # noqa: RUF012
