"""Where messages go that cannot be handled: whole, with the reason, durable before they are acknowledged."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import traceback
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import delete, insert, select

from core.delivery.tables import dead_letters
from core.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection

    from core.delivery.delivery import Delivery

log = logging.getLogger("routemq.delivery")

MOST_TRACEBACK = 20_000


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
    def of(cls, delivery: Delivery, error: BaseException, client_id: str) -> DeadLetter:
        """Make the dead letter of ``delivery``, which failed for the last time with ``error``."""
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
            reason=one_line(error).replace("\0", "\\x00"),
            traceback=frames,
            attempts=delivery.attempt,
            first_at=datetime.fromtimestamp(delivery.first_at, UTC),
            last_at=datetime.now(UTC),
            client_id=client_id,
        )


class DeadLetters(Protocol):
    """A place for dead letters."""

    async def add(self, dead_letter: DeadLetter) -> None:
        """Store ``dead_letter``; it is durable when this returns. Raises what the storage raises."""


class DeadLetterTable:
    """Dead letters in the table ``routemq_dead_letters``; ``begin`` opens a transaction that commits at its end.

    About ``most`` are kept: now and then the oldest beyond that are deleted, which is told in the log.
    """

    def __init__(self, begin: Callable[[], AbstractAsyncContextManager[AsyncConnection]], most: int) -> None:
        self._begin = begin
        self._most = most
        self._trim_every = max(most // 100, 1)
        self._added = 0

    async def add(self, dead_letter: DeadLetter) -> None:
        """Store ``dead_letter`` and commit."""
        async with self._begin() as connection:
            await connection.execute(insert(dead_letters).values(asdict(dead_letter)))
            if self._added % self._trim_every == 0:
                await self._trim(connection)
        self._added += 1

    async def _trim(self, connection: AsyncConnection) -> None:
        oldest = select(dead_letters.c.id).order_by(dead_letters.c.id.desc()).offset(self._most - 1).limit(1)
        gone = await connection.execute(delete(dead_letters).where(dead_letters.c.id < oldest.scalar_subquery()))
        if gone.rowcount:
            log.warning("%d dead letters deleted, the oldest: more than DEAD_LETTER_MAX=%d", gone.rowcount, self._most)


class DeadLetterFile:
    """Dead letters in a file, one JSON object a line, for applications without a database."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = asyncio.Lock()

    async def add(self, dead_letter: DeadLetter) -> None:
        """Append ``dead_letter`` and wait until it is on the disk."""
        line = json.dumps(json_ready(asdict(dead_letter))) + "\n"
        async with self._lock:
            await asyncio.to_thread(self._append, line)

    def _append(self, line: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


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
