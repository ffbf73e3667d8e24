"""The record of the messages that were committed. A redelivery of one of them is acknowledged and not run again."""

from __future__ import annotations

import secrets
from collections import deque
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from core.records.tables import processed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncConnection

    from core.mqtt.message import Message

MAX_PACKETS = 32_767
"""Committed messages, counted from the last one, that may still come again. No broker has more under way.

It is half of all packet identifiers (MQTT 5, 2.2.1). A broker that numbers packets in a circle does not come to the same
identifier again within that many.
"""
_INSERT = insert(processed).returning(processed.c.id)
_INSERT_OF: dict[str, Any] = {
    name: insert_of(processed).on_conflict_do_nothing(index_elements=["unit"]).returning(processed.c.id)
    for name, insert_of in (("postgresql", postgresql.insert), ("sqlite", sqlite.insert))
}
"""The same, for a name that a transaction in doubt may have."""
_DIGEST = 8
_ENTRY = 2 + _DIGEST


def digest(message: Message) -> bytes:
    """Return eight bytes that stand for topic and body of ``message``."""
    return blake2b(message.topic.encode() + b"\0" + message.body, digest_size=_DIGEST).digest()


class Packets:
    """The record of one session, in the table ``routemq_processed``. Each committed transaction has one row.

    A message is known if all of this holds:

    - it has DUP set;
    - it came on a resumed session;
    - the last message that was committed under its packet identifier has the same digest;
    - fewer than 32,767 messages were committed since.

    That works with brokers that set DUP and number packets in a circle, such as Mosquitto and EMQX.

    - ``begin``: opens a transaction that commits at its end.
    - ``client_id``: the client identifier of the session.
    - ``broker``: the address of its broker.
    """

    def __init__(
        self, begin: Callable[[], AbstractAsyncContextManager[AsyncConnection]], client_id: str, broker: str
    ) -> None:
        self._begin = begin
        self._client_id = client_id
        self._broker = broker
        self._own = (processed.c.client_id == client_id, processed.c.broker == broker)
        # By packet identifier: the digest, and the number of the packet, counted from 1.
        self._known: dict[int, tuple[bytes, int]] = {}
        self._count = 0
        # The number of each row, and how many packets it holds, the oldest row first.
        self._rows: deque[tuple[int, int]] = deque()
        self._packets = 0
        self._resumed = False

    async def load(self) -> None:
        """Read what earlier processes committed. Raise what the database raises."""
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
        """Record a new connection. Without the old session the broker numbers packets anew, and nothing is known."""
        self._resumed = session_present
        if not session_present:
            self._known.clear()

    def is_known(self, message: Message) -> bool:
        """Return whether ``message`` is the redelivery of a committed message."""
        if not message.dup or not self._resumed:
            return False
        known = self._known.get(message.packet_id)
        return known is not None and self._count - known[1] < MAX_PACKETS and known[0] == digest(message)

    async def record(
        self, session: AsyncSession | AsyncConnection, messages: Iterable[Message], name: str | None = None
    ) -> Record | None:
        """Record ``messages`` in the transaction of ``session``. Delete the rows of messages that cannot come again.

        ``name`` is that of a transaction whose commit is in doubt. The unique index waits until it has ended. Return None
        where it was committed.
        """
        packets = b"".join(m.packet_id.to_bytes(2, "big") + digest(m) for m in messages if m.qos)
        record = Record(name or secrets.token_hex(16), packets)
        row = {
            "client_id": self._client_id,
            "broker": self._broker,
            "unit": record.name,
            "packets": packets,
            "committed_at": datetime.now(UTC),
        }
        connection = await session.connection() if isinstance(session, AsyncSession) else session
        statement = _INSERT if name is None else _INSERT_OF[connection.dialect.name]
        number = (await connection.execute(statement, row)).scalar_one_or_none()
        if number is None:
            return None
        record.number = number
        gone = self._too_old()
        if gone:
            await connection.execute(delete(processed).where(*self._own, processed.c.id <= gone))
            record.trims = gone
        return record

    def _too_old(self) -> int:
        """Return the number of the last row whose packets cannot come again. Return 0 where there is none."""
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
        """Record that the transaction of ``record`` was committed."""
        self._take(record.number, record.packets)
        while self._rows and self._rows[0][0] <= record.trims:
            self._packets -= self._rows.popleft()[1]


class Record:
    """One row of the table.

    - ``name``: a random name of the transaction.
    - ``packets``: the identifier and the digest of each packet.
    - ``number``: the number of the row. 0 until it is written.
    - ``trims``: the number of the last row that its transaction deleted. 0 for none.
    """

    __slots__ = ("name", "number", "packets", "trims")

    def __init__(self, name: str, packets: bytes) -> None:
        self.name = name
        self.packets = packets
        self.number = 0
        self.trims = 0
