"""Messages that handlers publish in a transaction. They are stored with it, and sent after it, at least once, in order."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from itertools import groupby
from time import monotonic
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select

from core.codecs.plain import json_ready
from core.database.fault import Fault, fault_of
from core.errors import DeadLettersFullError, UnsentError, one_line
from core.mqtt.publication import Publication, check_publication
from core.publisher import Outgoing
from core.records.dead_letters import DeadLetter
from core.records.properties import properties_from_json
from core.records.tables import outbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession


log = logging.getLogger("routemq.delivery")

MAX_AT_ONCE = 200
"""Messages that are read and sent together."""
PAUSE = 1.0
"""Seconds after a failure."""
REMIND_EVERY = 60.0
"""Seconds between two log lines about dead letters for which there is no room."""


class Outbox:
    """The rows of one client in the table ``routemq_outbox``.

    Messages are sent in the order of their numbers, for each topic, and then deleted. A process that dies between the two
    sends them again after its next start.

    - ``begin``: opens a transaction that commits at its end.
    - ``outgoing``: sends the messages. While there is no connection, it waits for one.
    - ``bury``: stores the dead letter of a message that the broker does not take.
    - ``client_id``: the client identifier of the worker's session.
    """

    def __init__(
        self,
        begin: Callable[[], AbstractAsyncContextManager[AsyncConnection]],
        outgoing: Outgoing,
        bury: Callable[[DeadLetter], Awaitable[None]],
        client_id: str,
    ) -> None:
        self._begin = begin
        self._outgoing = outgoing
        self._bury = bury
        self._client_id = client_id
        # Refused, but not stored as dead letters yet: they are not sent again.
        self._refused: dict[int, DeadLetter] = {}
        self._told_at = -REMIND_EVERY
        self._wake = asyncio.Event()
        self._flushed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start sending: first what earlier processes left, then what is committed."""
        self.kick()
        self._task = asyncio.create_task(self._run(), name="outbox")

    async def stop(self) -> None:
        """Stop sending. What is left is sent after the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def kick(self) -> None:
        """Record that something was committed, so that it is sent."""
        self._flushed.clear()
        self._wake.set()

    async def flushed(self) -> None:
        """Wait until everything that is committed by now is sent."""
        await self._flushed.wait()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while await self._send():
                    pass
                if not self._wake.is_set():
                    self._flushed.set()
            except DeadLettersFullError as full:
                if monotonic() - self._told_at >= REMIND_EVERY:
                    self._told_at = monotonic()
                    log.error("messages of the outbox were refused, and wait: %s", full)  # noqa: TRY400 - it says it all
                await asyncio.sleep(PAUSE)
                self._wake.set()
            except Exception as error:
                if fault_of(error) is Fault.MESSAGE:
                    log.exception("the outbox could not be sent. It is tried again in %g s", PAUSE)
                else:
                    log.debug("the outbox waits, and is tried again in %g s: %s", PAUSE, one_line(error))
                await asyncio.sleep(PAUSE)
                self._wake.set()

    async def _send(self) -> bool:
        """Send the oldest messages, 200 at most. Return whether there may be more."""
        wanted = select(outbox).where(outbox.c.client_id == self._client_id).order_by(outbox.c.id).limit(MAX_AT_ONCE)
        async with self._begin() as connection:
            rows = (await connection.execute(wanted)).all()
        if not rows:
            return False
        # Topics go side by side. The messages of one topic go one after the other.
        by_topic = groupby(sorted(rows, key=lambda row: (row.topic, row.id)), key=lambda row: row.topic)
        sent: list[int] = []
        ends = await asyncio.gather(*(self._send_in_order(list(same), sent) for _, same in by_topic), return_exceptions=True)
        if sent:
            async with self._begin() as connection:
                await connection.execute(delete(outbox).where(outbox.c.id.in_(sent)))
        failed = next((end for end in ends if end is not None), None)
        if failed is not None:
            raise failed
        return len(rows) == MAX_AT_ONCE

    async def _send_in_order(self, rows: list[Any], sent: list[int]) -> None:
        """Send the messages of one topic, and add the numbers of those that are sent to ``sent``."""
        for row in rows:
            letter = self._refused.get(row.id) or await self._send_row(row)
            if letter is not None:
                self._refused[row.id] = letter
                await self._bury(letter)
                del self._refused[row.id]
                log.error("a message of the outbox is now a dead letter. %s [topic %s]", letter.reason, row.topic[:200])
            sent.append(row.id)

    async def _send_row(self, row: Any) -> DeadLetter | None:
        """Send one message. Return its dead letter if the broker refuses it: kept, it would hold up all behind it."""
        properties = properties_from_json(row.properties)
        try:
            await self._outgoing.send(Publication(row.topic, row.body, row.qos, row.retain, properties))
        except Exception as error:
            if fault_of(error) is not Fault.MESSAGE:
                raise
            return self._letter(row, error)
        return None

    def _letter(self, row: Any, error: Exception) -> DeadLetter:
        """Return the dead letter of the message in ``row``, which the broker refused with ``error``."""
        created_at = row.created_at if row.created_at.tzinfo else row.created_at.replace(tzinfo=UTC)
        return DeadLetter(
            topic=row.topic,
            body=row.body,
            qos=row.qos,
            retain=row.retain,
            properties=row.properties,
            route=None,
            error=UnsentError.__name__,
            reason=f"{UnsentError.__name__}: it could not be published: {one_line(error)}",
            traceback=None,
            attempts=1,
            first_at=created_at,
            last_at=datetime.now(UTC),
            client_id=self._client_id,
            # A process that dies before the row is deleted sends it again, and stores the same letter again.
            message_id=f"outbox-{row.id}-{created_at.timestamp():.6f}",
        )


class Collected(Outgoing):
    """What the handlers of one transaction publish, kept until its end."""

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id
        self.rows: list[dict[str, Any]] = []

    async def send(self, publication: Publication) -> None:
        """Keep ``publication`` for the outbox. Raise TopicError and ValueError for one that cannot be sent."""
        topic, body, qos, retain, properties = check_publication(publication)
        row = {
            "client_id": self._client_id,
            "topic": topic,
            "body": body,
            "qos": qos,
            "retain": retain,
            "properties": json_ready(properties) if properties else None,
            "created_at": datetime.now(UTC),
        }
        self.rows.append(row)

    async def store(self, session: AsyncSession | AsyncConnection) -> None:
        """Write the messages to the outbox, in the transaction of ``session``."""
        if self.rows:
            await session.execute(insert(outbox), self.rows)
