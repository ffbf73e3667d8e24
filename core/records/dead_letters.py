"""Where messages go that cannot be handled: whole, with the reason, durable before they are acknowledged."""

from __future__ import annotations

import base64
import logging
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, cast

from sqlalchemy import delete, func, insert, select

from core.codecs.limits import DEFAULT, Limits
from core.errors import NoRouteError, SchemaError, one_line
from core.records.tables import dead_letters

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from core.handling.delivery import Delivery
    from core.mqtt.message import Message, Properties

log = logging.getLogger("routemq.delivery")

MOST_TRACEBACK = 20_000
MOST_REASON = 8_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that could not be handled, and why. Times are aware, in UTC."""

    topic: str
    body: bytes
    qos: int
    retain: bool
    properties: dict[str, Any] | None
    route: str | None
    error: str
    reason: str
    traceback: str | None
    attempts: int
    first_at: datetime
    last_at: datetime
    client_id: str

    @classmethod
    def of(cls, delivery: Delivery, error: BaseException, client_id: str, limits: Limits = DEFAULT) -> DeadLetter:
        """Make the dead letter of ``delivery``, which failed for the last time with ``error``; ``limits`` of bodies."""
        message = delivery.message
        frames = None
        if delivery.refused is None and error.__traceback__ is not None:
            frames = "".join(traceback.format_exception(error))[-MOST_TRACEBACK:].replace("\0", "\\x00")
        return cls(
            topic=message.topic,
            body=message.body,
            qos=message.qos,
            retain=message.retain,
            properties=json_ready(message.properties) if message.properties else None,
            route=delivery.route.name if delivery.route else None,
            error=type(error).__qualname__,
            # PostgreSQL's text holds no NUL, and an exception's message may.
            reason=_reason(delivery.message, error, limits).replace("\0", "\\x00"),
            traceback=frames,
            attempts=delivery.attempt,
            first_at=datetime.fromtimestamp(delivery.first_at, UTC),
            last_at=datetime.now(UTC),
            client_id=client_id,
        )


def _reason(message: Message, error: BaseException, limits: Limits) -> str:
    """Give the reason in one line, and in more where a schema was not met: the whole report, of 8,000 characters at most."""
    if isinstance(error, SchemaError):
        return f"{type(error).__name__}: {error.report}"[:MOST_REASON]
    if not isinstance(error, NoRouteError):
        return one_line(error)
    reason = f"{type(error).__name__}: {error}"
    if error.near is not None and error.near.options.schema is not None:
        # The topic's parameters and the payload are one message to its sender: all that is wrong with it in one report.
        try:
            error.near.read(message, limits)
        except SchemaError as faults:
            reason += f"\n{faults.report}"
        except Exception as fault:  # noqa: BLE001 - a codec or a schema's own code
            reason += f"\n{one_line(fault, name=False)}"
    return reason[:MOST_REASON]


@dataclass(frozen=True, slots=True)
class Stored:
    """A dead letter where it is stored, under its number there."""

    id: int
    letter: DeadLetter


Also = Callable[["AsyncConnection"], Awaitable[None]]
"""Writes something more in the transaction that stores a dead letter."""


class DeadLetters(Protocol):
    """A place for dead letters."""

    async def add(self, dead_letter: DeadLetter, also: Also | None = None) -> None:
        """Store ``dead_letter``; it is durable when this returns. Raises what the storage raises.

        ``also`` is called within the same transaction, where the storage has such.
        """


class DeadLetterStore(DeadLetters, Protocol):
    """A place where dead letters have ascending numbers and can be looked at. Everything raises what the storage raises."""

    async def count(self) -> int:
        """Give how many there are."""

    async def last(self) -> int:
        """Give the highest number, 0 if there are none."""

    async def read(self, *, after: int = 0, most: int = 100, route: str | None = None) -> list[Stored]:
        """Give at most ``most`` of those with numbers above ``after``, the oldest first; ``route`` is a route's name."""

    async def latest(self, *, most: int, route: str | None = None) -> list[Stored]:
        """Give the latest ``most``, the oldest of them first."""

    async def get(self, number: int) -> Stored | None:
        """Give the one with this number."""

    async def remove(self, numbers: Collection[int]) -> int:
        """Remove those with these numbers, and give how many there were."""


class DeadLetterTable:
    """Dead letters in the table ``routemq_dead_letters``; ``begin`` opens a transaction that commits at its end.

    About ``most`` are kept: now and then the oldest beyond that are deleted, which is told in the log.
    """

    def __init__(self, begin: Callable[[], AbstractAsyncContextManager[AsyncConnection]], most: int) -> None:
        self._begin = begin
        self._most = most
        self._trim_every = max(most // 100, 1)
        self._added = 0

    async def add(self, dead_letter: DeadLetter, also: Also | None = None) -> None:
        """Store ``dead_letter`` and commit."""
        async with self._begin() as connection:
            if also is not None:
                await also(connection)
            await connection.execute(insert(dead_letters).values(asdict(dead_letter)))
            if self._added % self._trim_every == 0:
                await self._trim(connection)
        self._added += 1

    async def _trim(self, connection: AsyncConnection) -> None:
        oldest = select(dead_letters.c.id).order_by(dead_letters.c.id.desc()).offset(self._most - 1).limit(1)
        gone = await connection.execute(delete(dead_letters).where(dead_letters.c.id < oldest.scalar_subquery()))
        if gone.rowcount:
            log.warning("%d dead letters deleted, the oldest: more than DEAD_LETTER_MAX=%d", gone.rowcount, self._most)

    async def count(self) -> int:
        """Give how many there are."""
        async with self._begin() as connection:
            return int((await connection.execute(select(func.count()).select_from(dead_letters))).scalar_one())

    async def last(self) -> int:
        """Give the highest number, 0 if there are none."""
        async with self._begin() as connection:
            return int((await connection.execute(select(func.max(dead_letters.c.id)))).scalar_one() or 0)

    async def read(self, *, after: int = 0, most: int = 100, route: str | None = None) -> list[Stored]:
        """Give at most ``most`` of those with numbers above ``after``, the oldest first."""
        wanted = select(dead_letters).where(dead_letters.c.id > after).order_by(dead_letters.c.id).limit(most)
        return await self._read(wanted, route)

    async def latest(self, *, most: int, route: str | None = None) -> list[Stored]:
        """Give the latest ``most``, the oldest of them first."""
        return (await self._read(select(dead_letters).order_by(dead_letters.c.id.desc()).limit(most), route))[::-1]

    async def _read(self, wanted: Select[Any], route: str | None) -> list[Stored]:
        if route is not None:
            wanted = wanted.where(dead_letters.c.route == route)
        async with self._begin() as connection:
            return [_stored(row._mapping) for row in await connection.execute(wanted)]  # noqa: SLF001 - its public name

    async def get(self, number: int) -> Stored | None:
        """Give the one with this number."""
        found = await self.read(after=number - 1, most=1)
        return found[0] if found and found[0].id == number else None

    async def remove(self, numbers: Collection[int]) -> int:
        """Remove those with these numbers, and give how many there were."""
        async with self._begin() as connection:
            return (await connection.execute(delete(dead_letters).where(dead_letters.c.id.in_(list(numbers))))).rowcount


def _stored(row: Any) -> Stored:
    values = dict(row)
    number = values.pop("id")
    for name in ("first_at", "last_at"):
        if values[name].tzinfo is None:
            # SQLite keeps no time zone.
            values[name] = values[name].replace(tzinfo=UTC)
    return Stored(number, DeadLetter(**values))


def json_ready(values: Any) -> dict[str, Any]:
    """Give ``values`` as JSON can hold them: bytes in base64, times in ISO 8601."""
    ready = {}
    for name, value in values.items():
        if isinstance(value, bytes):
            ready[name] = base64.b64encode(value).decode("ascii")
        elif isinstance(value, datetime):
            ready[name] = value.isoformat()
        else:
            ready[name] = value
    return ready


def from_json(properties: dict[str, Any] | None) -> Properties | None:
    """Give properties back that ``json_ready`` made ready."""
    if not properties:
        return None
    given = dict(properties)
    if "correlation_data" in given:
        given["correlation_data"] = base64.b64decode(given["correlation_data"])
    if "user_property" in given:
        given["user_property"] = [(name, value) for name, value in given["user_property"]]
    return cast("Properties", given)
