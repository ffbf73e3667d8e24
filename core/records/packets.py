"""The record of the messages that were committed. A redelivery of one of them is acknowledged and not run again."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import bindparam, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database.statements.conflict import conflict_insert
from core.errors import ConnectionLostError, one_line
from core.records.tables import processed, sessions
from core.retry import Pauses
from core.session.identity import Identity, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncConnection

    from core.mqtt.message import Message
    from core.records.session_hold import Fence

log = logging.getLogger("routemq.delivery")

CIRCLE = 65_535
"""Packet identifiers (MQTT 5, 2.2.1). A broker that numbers packets in a circle comes to the same one after as many."""
HALF = CIRCLE // 2
MAX_UNDER_WAY = 16_384
"""Packets that a broker may have under way, counted back from the last one. Only they can come again.

PUBACKs leave in order of receipt, so that the Receive Maximum bounds it. That is far smaller as a rule, but Mosquitto 2.0
keeps to it only until the first PUBACK. Brokers of MQTT 3.1.1 have a limit of their own, such as 20 on Mosquitto.
"""
MARK_EVERY = 8_192
"""Packets received without a commit after which the place in the circle is written down."""
MAX_UNMARKED = 16_000
"""Packets received without that after which reading is paused.

Together with MAX_UNDER_WAY, which one read may bring more, that is less than half of the circle. So whatever a process has
received before it was killed, the next one can tell from an identifier how far the broker has come.
"""
MAX_READY = 10.0
"""Seconds that the database has to record the session before SUBSCRIBE."""
FIRST_PAUSE = 0.5
MAX_PAUSE = 10.0
"""Seconds between two attempts to write the position down."""
_INSERT = insert(processed).returning(processed.c.id)
_INSERT_OF: dict[str, Any] = {
    name: conflict_insert(name, processed).on_conflict_do_nothing(index_elements=["unit"]).returning(processed.c.id)
    for name in ("postgresql", "sqlite")
}
"""The same, for a name that a transaction in doubt may have."""
_COLUMNS = [column for column in processed.columns if column.name != "id"]
_HELD = (
    select(*(bindparam(f"new_{column.name}", type_=column.type) for column in _COLUMNS))
    .where(
        sessions.c.client_id == bindparam("new_client_id"),
        sessions.c.broker == bindparam("new_broker"),
        sessions.c.owner == bindparam("owner"),
    )
    .with_for_update(read=True)
)
"""The row, if this process holds the session. Until the transaction has ended, no other process can take it."""


def _fenced(statement: Any) -> Any:
    return statement.from_select([column.name for column in _COLUMNS], _HELD)


_FENCED = _fenced(_INSERT)
_FENCED_OF = {name: _fenced(statement) for name, statement in _INSERT_OF.items()}
_DIGEST = 8
_ENTRY = 2 + _DIGEST


def digest(message: Message) -> bytes:
    """Return eight bytes that stand for topic and body of ``message``."""
    return blake2b(message.topic.encode() + b"\0" + message.body, digest_size=_DIGEST).digest()


class Gate(Protocol):
    """Keeps further messages from coming in."""

    def block(self) -> None:
        """Stop reading."""

    def unblock(self) -> None:
        """Read again."""


class _Open:
    """A gate that is always open."""

    def block(self) -> None:
        """Do nothing."""

    def unblock(self) -> None:
        """Do nothing."""


@dataclass(slots=True)
class _Row:
    """A row of the table, as far as it is kept in mind."""

    number: int
    packets: int
    position: int


class Packets:
    """The record of one session, in the table ``routemq_processed``. Each committed transaction has one row.

    A message is known if all of this holds:

    - it has DUP set, and came on a resumed session;
    - the last message that was committed under its packet identifier in this generation of the session has the same digest;
    - no message without DUP has come under that identifier since;
    - the broker has come no further than 16,384 packets since.

    A **generation** begins when CONNACK says that there is no session. It is written down before SUBSCRIBE, so that nothing
    of the new session can be taken for something of the old one. A process may be killed between CONNACK and that. So
    each one begins a generation with its first SUBSCRIBE, also in a session that is there. If a message with DUP comes on
    that connection, somebody has subscribed in the session before, and the records of the last generation hold on.

    The **position** is the number of the latest packet, counted on over all circles. The identifier says where in the circle
    it is, so that packets of other routes, and of processes that were killed, are counted too.

    - ``begin``: opens a transaction that commits at its end.
    - ``client_id``: the client identifier of the session.
    - ``broker``: the address of its broker.
    - ``identity``: knows whether the broker's identifiers can be trusted. Where they cannot, no message is known.
    - ``gate``: keeps messages from coming in while the database does not answer for too long.
    - ``fence``: lets nothing be committed once another process has the session, which was told what was committed until
      then. By default there is none.
    """

    def __init__(
        self,
        begin: Callable[[], AbstractAsyncContextManager[AsyncConnection]],
        client_id: str,
        broker: str,
        identity: Identity | None = None,
        gate: Gate | None = None,
        fence: Fence | None = None,
    ) -> None:
        self._fence = fence
        self._begin = begin
        self._names = {"client_id": client_id, "broker": broker}
        self._own = (processed.c.client_id == client_id, processed.c.broker == broker)
        self.identity = identity or Identity()
        self._gate = gate or _Open()
        # By packet identifier: the digest, and the position.
        self._known: dict[int, tuple[bytes, int]] = {}
        self._position = 0
        self._rows: deque[_Row] = deque()
        self._packets = 0
        self._resumed = False
        self._generation = 0
        # Whether nothing in the database says yet that this generation has begun.
        self._fresh = False
        # Whether it is not proven yet that the session is that of the generation before, and which one that was.
        self._unsure = False
        self._before: int | None = None
        self._carried: int | None = None
        self._subscribed = False
        # Up to which position the database knows it, and at which one to look whether that is enough.
        self._marked = 0
        self._look_at = MARK_EVERY
        self._blocked = False
        self._marking: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """Read what earlier processes committed. Raise what the database raises."""
        wanted = select(processed).where(*self._own).order_by(processed.c.id)
        async with self._begin() as connection:
            found = (await connection.execute(wanted)).all()
        # Rows of before there were generations have none.
        self._generation = max((row.generation or 0 for row in found), default=0)
        for row in found:
            if (row.generation or 0) == self._generation:
                self._take(row.id, row.packets, row.position)
        self._unsure = True
        self._recorded(self._position)

    # -- for the consumer ----------------------------------------------------------------------------------------------

    def connected(self, *, session_present: bool) -> None:
        """Record a new connection. Without the old session the broker numbers packets anew, and nothing is known."""
        self._resumed = session_present
        if not session_present:
            self._known.clear()
            self._position = 0
            self._carried = None
            self._renew()
            self.identity.renew()
        if self._subscribed or not session_present:
            self._unsure, self._before = False, None

    def _renew(self) -> None:
        """Begin a generation."""
        self._generation += 1
        self._fresh = True
        self._rows.clear()
        self._packets = 0
        self._recorded(self._position)

    async def ready(self) -> None:
        """Make ready for SUBSCRIBE. Raise ConnectionLostError if the database cannot record the generation now."""
        if self._unsure and self._before is None:
            self._before = self._generation
            self._renew()
        try:
            async with asyncio.timeout(MAX_READY):
                await self._mark()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is waited out
            said = f"no answer within {MAX_READY:g} s" if isinstance(error, TimeoutError) else _said(error)
            raise ConnectionLostError(
                f"nothing is subscribed, because the database could not record the session: {said}"
            ) from None
        self._subscribed = True

    def receive(self, message: Message) -> bool:
        """Count ``message``, and return whether it is the redelivery of a committed one."""
        packet_id = message.packet_id
        if not packet_id or not self.identity.recorded:
            return False
        if message.dup:
            return self._is_known(message)
        # A new message: its position is ahead of all others, and its identifier is no earlier one's any more.
        before = self._position
        self._position = position = before + ((packet_id - before) % CIRCLE or CIRCLE)
        known = self._known.pop(packet_id, None)
        if known is not None and before - known[1] < MAX_UNDER_WAY:
            self._came_again()
        if position >= self._look_at:
            self._look()
        return False

    def _is_known(self, message: Message) -> bool:
        """Return whether ``message``, which has DUP set, is the redelivery of a committed one."""
        self._advance(message.packet_id)
        if self._unsure:
            self._prove()
        if self._position >= self._look_at:
            self._look()
        known = self._known.get(message.packet_id)
        if known is None or not self._resumed or self._position - known[1] >= MAX_UNDER_WAY:
            return False
        return known[0] == digest(message)

    def _advance(self, packet_id: int) -> None:
        """Move the position to ``packet_id``, if that is ahead."""
        ahead = (packet_id - self._position) % CIRCLE
        if not self._position:
            self._position = packet_id
        elif ahead <= HALF:
            self._position += ahead

    def _prove(self) -> None:
        """Record that the session is that of the last generation. What was recorded then holds on."""
        self._unsure = False
        if self._before is not None:
            self._carried, self._before = self._before, None
            self._mark_soon()

    def _came_again(self) -> None:
        """Record that a broker took an identifier again that it cannot have come to in its circle."""
        self._known.clear()
        self._renew()
        self._block()
        self._mark_soon()
        self.identity.doubt(Verdict.REUSES)

    # -- the place in the circle ---------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Have the position written down, and pause reading where that is overdue."""
        if self._position - self._marked >= MAX_UNMARKED:
            self._block()
        self._look_at = self._position + CIRCLE if self._blocked else self._marked + MAX_UNMARKED
        self._mark_soon()

    def _block(self) -> None:
        if not self._blocked:
            self._blocked = True
            self._gate.block()

    def _recorded(self, position: int) -> None:
        """Record that the database knows ``position``."""
        self._marked = position
        self._look_at = position + MARK_EVERY
        if self._blocked and not self._due:
            self._blocked = False
            self._gate.unblock()

    @property
    def _due(self) -> bool:
        """Whether something has to be written down, beside what is committed."""
        return self._fresh or self._carried is not None or self._position - self._marked >= MARK_EVERY

    def _mark_soon(self) -> None:
        if self._marking is None or self._marking.done():
            self._marking = asyncio.get_running_loop().create_task(self._keep_marking(), name="mark packets")

    async def _keep_marking(self) -> None:
        pauses = Pauses(FIRST_PAUSE, MAX_PAUSE)
        told = False
        while self._due:
            try:
                await self._mark()
            except Exception as error:  # noqa: BLE001 - whatever it is, nothing may come in before it is written down
                if self._blocked and not told:
                    told = True
                    log.error("no message is read until the database records the session: %s", _said(error))  # noqa: TRY400
                await asyncio.sleep(pauses.next())
        if told:
            log.warning("the database has recorded the session: messages are read again")

    async def _mark(self) -> None:
        """Write down the generation and the position, and delete what cannot be needed any more."""
        async with self._lock:
            if not self._due:
                return
            generation, position, carried = self._generation, self._position, self._carried
            oldest = generation if self._before is None else self._before
            gone = max((row.number for row in self._rows if row.position <= position - MAX_UNDER_WAY), default=0)
            of = func.coalesce(processed.c.generation, 0)
            async with self._begin() as connection:
                if carried is not None:
                    await connection.execute(
                        update(processed).where(*self._own, of == carried).values(generation=generation)
                    )
                number = await self._insert(connection, self._row(b"", secrets.token_hex(16)))
                assert number is not None  # noqa: S101 - its name is new
                await connection.execute(delete(processed).where(*self._own, or_(of < oldest, processed.c.id <= gone)))
            if generation != self._generation:
                # The session was lost meanwhile.
                return
            self._fresh = False
            if self._carried == carried:
                self._carried = None
            self._remember(number, 1, position)
            self._drop(gone)
            self._recorded(position)

    async def stop(self) -> None:
        """Stop writing down the position. What was received since is told from the identifiers that come next."""
        if self._marking is not None:
            self._marking.cancel()
            await asyncio.wait([self._marking])

    # -- for transactions ----------------------------------------------------------------------------------------------

    def _row(self, packets: bytes, name: str) -> dict[str, Any]:
        return self._names | {
            "unit": name,
            "packets": packets,
            "committed_at": datetime.now(UTC),
            "generation": self._generation,
            "position": self._position,
        }

    async def record(
        self, session: AsyncSession | AsyncConnection, messages: Iterable[Message], name: str | None = None
    ) -> Record | None:
        """Record ``messages`` in the transaction of ``session``. Delete the rows of messages that cannot come again.

        ``name`` is that of a transaction whose commit is in doubt. The unique index waits until it has ended. Return None
        where it was committed.
        """
        packets = b""
        if self.identity.recorded:
            # Whose identifier another message has taken has none.
            packets = b"".join(m.packet_id.to_bytes(2, "big") + digest(m) for m in messages if m.packet_id)
        row = self._row(packets, name or secrets.token_hex(16))
        record = Record(row["unit"], packets, row["generation"], row["position"])
        connection = await session.connection() if isinstance(session, AsyncSession) else session
        number = await self._insert(connection, row, may_be_there=name is not None)
        if number is None:
            return None
        record.number = number
        gone = self._too_old()
        if gone:
            await connection.execute(delete(processed).where(*self._own, processed.c.id <= gone))
            record.trims = gone
        return record

    async def _insert(self, connection: AsyncConnection, row: dict[str, Any], *, may_be_there: bool = False) -> int | None:
        """Insert ``row`` and return its number. Return None where its name is there already, if that may be.

        Raise SessionTakenOverError if another process has the session.
        """
        fence, name = self._fence, connection.dialect.name
        if fence is None:
            inserted = await connection.execute(_INSERT_OF[name] if may_be_there else _INSERT, row)
            return inserted.scalar_one_or_none()
        values = {f"new_{column}": value for column, value in row.items()} | {"owner": fence.owner}
        inserted = await connection.execute(_FENCED_OF[name] if may_be_there else _FENCED, values)
        number: int | None = inserted.scalar_one_or_none()
        if number is None:
            await fence.check(connection, **self._names)
        return number

    def _too_old(self) -> int:
        """Return the number of the last row whose packets cannot come again. Return 0 where there is none."""
        left, last = self._packets, 0
        if left < MAX_UNDER_WAY + MAX_UNDER_WAY // 8:
            return 0
        for row in self._rows:
            if left - row.packets < MAX_UNDER_WAY:
                break
            left -= row.packets
            last = row.number
        return last

    def committed(self, record: Record) -> None:
        """Record that the transaction of ``record`` was committed."""
        if record.generation != self._generation:
            # Its messages came in a session that is gone.
            return
        self._fresh = False
        self._take(record.number, record.packets, record.position)
        self._drop(record.trims)
        self._recorded(max(self._marked, record.position))

    def _take(self, number: int, packets: bytes, position: int | None) -> None:
        """Remember the row ``number``. Rows of before there were positions have none, and their packets in order."""
        for start in range(0, len(packets), _ENTRY):
            packet_id = int.from_bytes(packets[start : start + 2], "big")
            if position is None:
                self._advance(packet_id)
            last = self._position if position is None else position
            self._known[packet_id] = packets[start + 2 : start + _ENTRY], last - (last - packet_id) % CIRCLE
        if position is None or position > self._position:
            self._position = position or self._position
        self._remember(number, len(packets) // _ENTRY, self._position if position is None else position)

    def _remember(self, number: int, packets: int, position: int) -> None:
        # A row without packets counts as one, so that such rows are trimmed too.
        self._rows.append(_Row(number, max(packets, 1), position))
        self._packets += self._rows[-1].packets

    def _drop(self, gone: int) -> None:
        while self._rows and self._rows[0].number <= gone:
            self._packets -= self._rows.popleft().packets


class Record:
    """One row of the table.

    - ``name``: a random name of the transaction.
    - ``packets``: the identifier and the digest of each packet.
    - ``generation``: that of the session.
    - ``position``: that of the latest packet received.
    - ``number``: the number of the row. 0 until it is written.
    - ``trims``: the number of the last row that its transaction deleted. 0 for none.
    """

    __slots__ = ("generation", "name", "number", "packets", "position", "trims")

    def __init__(self, name: str, packets: bytes, generation: int, position: int) -> None:
        self.name = name
        self.packets = packets
        self.generation = generation
        self.position = position
        self.number = 0
        self.trims = 0


def _said(error: BaseException) -> str:
    """Return what the database's driver said, in one line."""
    return one_line(getattr(error, "orig", None) or error)
