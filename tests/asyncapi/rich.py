"""An application with everything that a document can hold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, computed_field, field_validator
from typing_extensions import TypedDict

from core.controller import Controller
from core.router import Router
from tests.asyncapi import other

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.context import Context


class Unit(Enum):
    CELSIUS = "celsius"
    KELVIN = "kelvin"


class Position(BaseModel):
    """Where on the earth something is."""

    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)


class Reading(BaseModel):
    """One measurement of one device."""

    value: float = Field(description="What was measured.", gt=-273.15, examples=[21.5])
    unit: Unit = Unit.CELSIUS
    at: datetime = Field(description="When, with its time zone.")
    serial: str = Field(pattern=r"^[A-Z]{3}-\d{4}$", description="As it stands on the case.")
    note: str | None = Field(None, max_length=5)
    position: Position | None = None
    tags: Annotated[list[Annotated[str, Field(min_length=2)]], Field(min_length=1, max_length=8)]


class Switch(BaseModel):
    kind: Literal["switch"]
    on: bool


class Dim(BaseModel):
    kind: Literal["dim"]
    percent: int = Field(multiple_of=5, gt=0, le=100)


Command = Annotated[Switch | Dim, Field(discriminator="kind")]


class Node(BaseModel):
    """A part that has parts."""

    name: str
    parent: Node | None = None
    children: list[Node] = []


class Status(BaseModel):
    """How the request went."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"ok": True, "took": 0.25}]})

    ok: bool = True
    took: float = Field(0, description="Seconds.")


class Area(BaseModel):
    """It is answered with more than it came with, and under the names of its fields."""

    width: float = Field(alias="w")
    height: float = Field(alias="h")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> float:
        return self.width * self.height


class Odd(BaseModel):
    """Only its own validator knows what it takes."""

    word: str

    @field_validator("word")
    @classmethod
    def _known(cls, value: str) -> str:
        if value != "sesame":
            raise ValueError("not the word")
        return value


@dataclass
class Point:
    x: int
    y: int = 0


class Totals(TypedDict, total=False):
    count: int
    sum: float


class Everything(BaseModel):
    uuid: UUID
    day: date
    pause: timedelta
    price: Decimal
    address: IPv4Address
    raw: bytes
    pair: tuple[int, str]
    several: set[int] = Field(min_length=3)
    by_name: dict[str, Point]
    by_day: dict[date, Annotated[int, Field(ge=3)]]
    anything: Any
    either: int | list[str]
    small: Annotated[int, Field(lt=-5)]
    between: Annotated[float, Field(gt=0, lt=1)]
    renamed: int = Field(alias="reNamed")
    extra: dict[str, Any] = Field(default_factory=dict)


class Devices(Controller):
    async def reading(self, context: Context[Reading]) -> None:
        """Store one reading.

        The device's clock must be right: what lies in the future is refused.

        - `value` is stored as it came
        - ``unit`` is kept beside it
        """

    async def ask(self, context: Context[Node]) -> Status | None:
        """Answer how the device is, in a summary
        that has two lines."""
        return Status()

    async def command(self, context: Context[Any]) -> list[Point]:
        raise NotImplementedError

    async def many(self, contexts: Sequence[Context[Any]]) -> Totals:
        """Store many at once."""
        raise NotImplementedError


async def echo(context: Context[Reading]) -> Reading:
    return context["payload"]


async def area(context: Context[Area]) -> Area:
    return context["payload"]


# As a user writes one without annotations.
async def other_reading(context):  # type: ignore[no-untyped-def]
    pass


def total(context: Context[Any]) -> Totals:
    """Count."""
    raise NotImplementedError


async def unreadable(context: Context[Odd]) -> NoSuchName:  # type: ignore[name-defined] # noqa: F821
    """Answer with who knows what."""


async def nothing(context: Context[Any]) -> None:
    pass


def build() -> Router:
    router = Router()
    with router.group("devices/<device_id>") as devices:
        devices.on("data", Devices.reading, schema=Reading)
        devices.on("ask/<int:number>", Devices.ask, schema=Node, reply="devices/<device_id>/answers/<number>")
        devices.on("command", Devices.command, schema=Command, reply_errors=True, delivery="exactly_once", dedup="id")
        devices.on("many", Devices.many, schema=list[Reading], batch=500, qos=0, order_by=None)
    router.on("echo/<uuid:u>/<float:f>", echo, schema=Reading, name="echo", delivery="at_most_once", order_by="u")
    router.on("other", other_reading, schema=other.Reading)
    router.on("total", total, schema=Everything, reply="totals")
    router.on("points", total, schema=dict[str, Point])
    router.on("area", area, schema=Area)
    router.on("odd", unreadable, schema=Odd)
    router.on("text/+/x", nothing, codec="text")
    router.on("raw/<path:rest>", nothing, codec="raw")
    router.on("any/#", nothing)
    router.on("x/<int:n>", nothing, schema=int)
    router.on("x/<n>", other_reading, schema=Totals, reply="results/<n>")
    return router
