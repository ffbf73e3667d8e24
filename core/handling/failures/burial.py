"""A message that cannot be handled becomes a dead letter. This module decides what is written of it, and where."""

from __future__ import annotations

import logging
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from core.codecs.plain import json_ready
from core.database.fault import Fault, fault_of
from core.errors import DeadLettersFullError, NoRouteError, RouteStandsError, SchemaError, one_line
from core.records.dead_letters import DeadLetter

if TYPE_CHECKING:
    from core.codecs.limits import Limits
    from core.handling.delivery import Delivery
    from core.records.dead_letters import Also, DeadLetters

log = logging.getLogger("routemq.delivery")

MAX_TRACEBACK = 20_000
"""Characters of a traceback. Its end is kept, where the error stands."""
MAX_REASON = 8_000
"""Characters of a reason. Its beginning is kept."""


class Burial:
    """Stores messages that cannot be handled as dead letters.

    - ``dead_letters``: the place for them.
    - ``last_resort``: the place for one that ``dead_letters`` refuses.
    - ``backlog``: the place for those that wait for their routes. None where none can wait.
    - ``client_id``: the client identifier that is written with each.
    - ``limits``: the limits of bodies, for a report on a body that no route took.
    """

    def __init__(
        self,
        dead_letters: DeadLetters,
        last_resort: DeadLetters,
        backlog: DeadLetters | None,
        client_id: str,
        limits: Limits,
    ) -> None:
        self._dead_letters = dead_letters
        self._last_resort = last_resort
        self._backlog = backlog
        self._client_id = client_id
        self._limits = limits

    def letter(self, delivery: Delivery, error: BaseException) -> DeadLetter:
        """Return the dead letter of ``delivery``, which failed for the last time with ``error``."""
        message = delivery.message
        frames = None
        if delivery.refused is None and error.__traceback__ is not None:
            frames = "".join(traceback.format_exception(error))[-MAX_TRACEBACK:].replace("\0", "\\x00")
        return DeadLetter(
            # PostgreSQL's text cannot hold a NUL, which a broker that does not check lets through.
            topic=message.topic.replace("\0", "\\x00"),
            body=message.body,
            qos=message.qos,
            retain=message.retain,
            properties=json_ready(message.properties) if message.properties else None,
            route=delivery.route.name if delivery.route else None,
            error=(isinstance(error, RouteStandsError) and error.kind) or type(error).__qualname__,
            # The message of an exception may hold a NUL, which PostgreSQL's text cannot.
            reason=self._reason(delivery, error).replace("\0", "\\x00"),
            traceback=frames,
            attempts=delivery.attempt,
            first_at=datetime.fromtimestamp(delivery.first_at, UTC),
            last_at=datetime.now(UTC),
            client_id=self._client_id,
            message_id=delivery.message_id,
        )

    def _reason(self, delivery: Delivery, error: BaseException) -> str:
        """Return the reason in one line. Where a schema was not met, return a line for each field."""
        if isinstance(error, SchemaError):
            return f"{type(error).__name__}: {error.report}"[:MAX_REASON]
        if not isinstance(error, NoRouteError):
            return one_line(error, name=not isinstance(error, RouteStandsError))
        reason = f"{type(error).__name__}: {error}"
        nearest = delivery.nearest
        if nearest is not None and nearest.options.schema is not None:
            # The sender of the message wants to know all that is wrong with it at once, topic and payload.
            try:
                nearest.read(delivery.message, self._limits)
            except SchemaError as faults:
                reason += f"\n{faults.report}"
            except Exception as fault:  # noqa: BLE001 - a codec or a schema's own code
                reason += f"\n{one_line(fault, name=False)}"
        return reason[:MAX_REASON]

    async def store(self, letter: DeadLetter, also: Also | None = None) -> None:
        """Store ``letter`` durably. Raise what keeps both places from storing it.

        ``also`` writes something more in the same transaction. A place without transactions does not call it.
        """
        try:
            await self._dead_letters.add(letter, also)
        except Exception as refusal:
            if isinstance(refusal, DeadLettersFullError) or fault_of(refusal) not in {Fault.MESSAGE, Fault.SCHEMA}:
                raise
            log.exception("a dead letter could not be stored in its table. It goes to the file instead")
            await self._last_resort.add(letter)

    async def park(self, letter: DeadLetter, also: Also | None = None) -> None:
        """Store ``letter`` durably where it waits for its route. Raise what keeps that from being done."""
        assert self._backlog is not None  # noqa: S101 - without a place for its messages, no route stands
        await self._backlog.add(letter, also)
