"""Which messages were committed, so that a redelivery of one is acknowledged and not run again."""

from __future__ import annotations

import secrets
from collections import deque
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.records.tables import processed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncConnection

    from core.mqtt.message import Message

MAX_PACKETS = 32_767
"""The last committed messages of which one may still be unacknowledged: more than any broker has under way.

It is half of the packet identifiers that there are (MQTT 5, 2.2.1), so that a broker which numbers packets in a circle has
not come to the same identifier again by then.
"""
_INSERT = insert(processed).returning(processed.c.id)
_DIGEST = 8
_ENTRY = 2 + _DIGEST


def digest(message: Message) -> bytes:
    """Give eight bytes that stand for topic and body."""
    return blake2b(message.topic.encode() + b"\0" + message.body, digest_size=_DIGEST).digest()


class Packets:
    """The record of one session, in the table ``routemq_processed``: one row for each committed transaction.

    A message is a known one only with DUP set, on a resumed session, with the packet identifier and the digest of the last
    message that was committed under that identifier. That holds for brokers that set DUP and number packets in a circle
    (Mosquitto, EMQX). ``begin`` opens a transaction that commits at its end.
    """

    def __init__(
        self, begin: Callable[[], AbstractAsyncContextManager[AsyncConnection]], client_id: str, broker: str
    ) -> None:
        self._begin = begin
        self._client_id = client_id
        self._broker = broker
        self._own = (processed.c.client_id == client_id, processed.c.broker == broker)
        # By packet identifier: the digest, and which packet it was, counted from 1.
        self._known: dict[int, tuple[bytes, int]] = {}
        self._count = 0
        # Row numbers, with the number of packets that each row holds, the oldest first.
        self._rows: deque[tuple[int, int]] = deque()
        self._packets = 0
        self._resumed = False

    async def load(self) -> None:
        """Read what earlier processes committed. Raises what the database raises."""
        wanted = select(processed.c.id, processed.c.packets).where(*self._own).order_by(processed.c.id)
        async with self._begin() as connection:
            for number, packets in await connection.execute(wanted):
                self._take(number, packets)

    def _take(self, number: int, packets: bytes) -> None:
        for start in range(0, len(packets), _ENTRY):
            packet_id = int.from_bytes(packets[start : start + 2], "big")
            self._count += 1
            self._known[packet_id] = packets[start + 2 : start + _ENTRY], self._count
        self._rows.append((number, len(packets) // _ENTRY))
        self._packets += len(packets) // _ENTRY

    def connected(self, *, session_present: bool) -> None:
        """Take note of a new connection: without its old session the broker numbers packets anew."""
        self._resumed = session_present
        if not session_present:
            self._known.clear()

    def is_known(self, message: Message) -> bool:
        """Say whether ``message`` is the redelivery of a committed one."""
        if not message.dup or not self._resumed:
            return False
        known = self._known.get(message.packet_id)
        return known is not None and self._count - known[1] < MAX_PACKETS and known[0] == digest(message)

    async def record(self, session: AsyncSession | AsyncConnection, messages: Iterable[Message]) -> Record:
        """Write that ``messages`` were processed, in the transaction of ``session``, and trim what cannot come again."""
        packets = b"".join(m.packet_id.to_bytes(2, "big") + digest(m) for m in messages if m.qos)
        record = Record(secrets.token_hex(16), packets)
        row = {
            "client_id": self._client_id,
            "broker": self._broker,
            "unit": record.unit,
            "packets": packets,
            "committed_at": datetime.now(UTC),
        }
        connection = await session.connection() if isinstance(session, AsyncSession) else session
        result = await connection.execute(_INSERT, row)
        record.number = result.scalar_one()
        gone = self._too_old()
        if gone:
            await connection.execute(delete(processed).where(*self._own, processed.c.id <= gone))
            record.trims = gone
        return record

    def _too_old(self) -> int:
        """Give the number up to which rows hold only packets whose identifiers were all used again since; 0 for none."""
        left, last = self._packets, 0
        if left < MAX_PACKETS + MAX_PACKETS // 8:
            return 0
        for number, count in self._rows:
            if left - count < MAX_PACKETS:
                break
            left -= count
            last = number
        return last

    def committed(self, record: Record) -> None:
        """Take note that the transaction of ``record`` was committed."""
        self._take(record.number, record.packets)
        while self._rows and self._rows[0][0] <= record.trims:
            self._packets -= self._rows.popleft()[1]

    async def has(self, record: Record) -> bool:
        """Ask the database whether the transaction of ``record`` was committed: its answer may have been lost."""
        async with self._begin() as connection:
            found = await connection.execute(select(processed.c.id).where(processed.c.unit == record.unit))
            return found.first() is not None


class Record:
    """One row of the table: ``unit`` is a random name of the transaction, by which it can be looked up."""

    __slots__ = ("number", "packets", "trims", "unit")

    def __init__(self, unit: str, packets: bytes) -> None:
        self.unit = unit
        self.packets = packets
        self.number = 0
        self.trims = 0
