"""Publishing over any number of connections, and finding the publication that the broker hangs up on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from core.errors import ConnectionLostError, HungUpError
from core.transport.connection import Closure
from core.transport.refusal import UNSPECIFIED, NotSentError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from core.mqtt.publication import Publication
    from core.transport.connection import Connection

MAX_LOSSES = 2
"""Connections that may end while a publication is under way among others. After that, it is sent alone."""
MAX_HANG_UPS = 3
"""Connections that the broker may close on a publication that is sent alone. After that, it counts as refused."""
MAX_REMEMBERED = 100
"""Publications of which it is remembered how many connections ended with them, after their callers waited no longer."""

_OF_THE_PACKET = {0x81, 0x82, 0x90, 0x95, 0x99, 0x9A, 0x9B}
"""Reason codes of DISCONNECT that name a fault of the packet before it (MQTT 5, 3.14.2.1)."""
_OF_THE_BROKER = {0x89, 0x8B, 0x8D, 0x8E, 0x96, 0x97, 0x98, 0x9C, 0x9D, 0x9F, 0xA0}
"""Reason codes that say of no packet that it is wrong: the broker stops, is busy, or has too much of everything."""


class Publishing:
    """Publishes on whatever connection stands.

    What was under way when two connections ended is suspected. Suspects are sent one at a time, each with nothing beside it,
    and only to a broker that has just shown that it answers. So hanging up says which of them the broker does not take, and
    all others get through. Nothing else is sent until the last suspect has its end.

    A handler that is cut off while it publishes runs again, and publishes the same. What was seen of that publication so
    far counts then, or a handler with a short time would never hear that the broker does not take it.

    ``standing`` waits for a connection.
    """

    def __init__(self, standing: Callable[[], Awaitable[Connection]]) -> None:
        self._standing = standing
        self._turn = asyncio.Lock()
        self._suspects = 0
        self._cleared = asyncio.Event()
        self._answering: Connection | None = None
        # By the hash of topic and body: losses and hang-ups.
        self._cut_off: dict[int, tuple[int, int]] = {}

    @property
    def searching(self) -> bool:
        """Whether there are suspects."""
        return self._suspects > 0

    async def publish(self, publication: Publication) -> None:
        """Publish (see ``core.session.session.Session.publish``)."""
        losses, hang_ups = self._cut_off.pop(hash(publication[:2]), (0, 0)) if self._cut_off else (0, 0)
        try:
            while losses < MAX_LOSSES:
                connection = await self._standing()
                if self._suspects:
                    await self._cleared.wait()
                    continue
                try:
                    await connection.publish(publication)
                except ConnectionLostError as error:
                    if publication.qos == 0:
                        return
                    if isinstance(error, NotSentError):
                        # The end of a connection is heard of before the session notices. Wait for the next connection.
                        await asyncio.sleep(0.01)
                    else:
                        losses += 1
                else:
                    return
        except asyncio.CancelledError:
            self._remember(publication, losses, 0)
            raise
        self._suspects += 1
        self._cleared.clear()
        try:
            await self._publish_alone(publication, hang_ups)
        finally:
            self._suspects -= 1
            if not self._suspects:
                self._cleared.set()

    def _remember(self, publication: Publication, losses: int, hang_ups: int) -> None:
        if losses:
            if len(self._cut_off) >= MAX_REMEMBERED:
                del self._cut_off[next(iter(self._cut_off))]
            self._cut_off[hash(publication[:2])] = losses, hang_ups

    async def _publish_alone(self, publication: Publication, hang_ups: int) -> None:
        while True:
            try:
                async with self._turn:
                    closure = await self._attempt(await self._standing(), publication)
            except asyncio.CancelledError:
                self._remember(publication, MAX_LOSSES, hang_ups)
                raise
            if closure is None:
                return
            if closure.hung_up and closure.reason_code not in _OF_THE_BROKER:
                hang_ups += 1
                if hang_ups >= MAX_HANG_UPS or closure.reason_code in _OF_THE_PACKET:
                    code = closure.reason_code or UNSPECIFIED
                    raise HungUpError(_told(publication, hang_ups, closure), code)

    async def _attempt(self, connection: Connection, publication: Publication) -> Closure | None:
        """Publish with nothing else beside it, and return None. Return why the connection ended if it did."""
        answers = self._answering is connection
        try:
            if not answers:
                await connection.ping()
                self._answering, answers = connection, True
            await connection.publish(publication)
        except ConnectionLostError as error:
            closure = await connection.closed()
            # The session notices the end a moment later.
            await asyncio.sleep(0.01)
            return closure if answers and not isinstance(error, NotSentError) else _NOTHING_PROVEN
        return None


_NOTHING_PROVEN = Closure("the connection ended before the message was sent")


def _told(publication: Publication, hang_ups: int, closure: Closure) -> str:
    times = "" if hang_ups == 1 else f" {hang_ups} times"
    topic = publication.topic if len(publication.topic) <= 100 else publication.topic[:100] + "..."
    return f"the broker hung up{times} on the message on {topic} ({len(publication.body):,} bytes): {closure.reason}"
