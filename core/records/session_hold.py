"""The record of the worker's session with its broker: which process holds it, and which topic filters are in it.

MQTT has no way to ask for either. The filter of a route that is gone would bring messages for ever. A second process with
the same client identifier looks like a broken network, on brokers that do not say "session taken over" (Mosquitto 2.0.11).
"""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from time import time
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import select

from core.database.statements.conflict import conflict_insert
from core.errors import SessionTakenOverError
from core.records.file import locked, replace_text
from core.records.tables import sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is remembered of one session.

    - ``owner``: a random word, which each process makes for itself.
    - ``filters``: the session's topic filters.
    - ``identity``: what the broker does with packet identifiers (see ``core.session.identity``). None: nobody has asked.
    - ``identity_at``: when that was found out, in seconds since the epoch.
    """

    owner: str
    filters: tuple[str, ...]
    identity: str | None = None
    identity_at: float = 0.0


class SessionStore(Protocol):
    """A place where sessions are remembered, by client identifier and broker address.

    All methods raise what the storage raises.
    """

    async def read(self, client_id: str, broker: str) -> Remembered | None:
        """Return what is remembered, or None."""

    async def write(self, client_id: str, broker: str, remembered: Remembered) -> None:
        """Remember ``remembered`` in the place of what was remembered before."""

    async def keep(self, client_id: str, broker: str, remembered: Remembered) -> bool:
        """Remember ``remembered``, unless another owner is remembered. Return whether it is remembered now."""


class SessionTable:
    """Sessions in the table ``routemq_sessions``. ``begin`` opens a transaction that commits at its end."""

    def __init__(self, begin: Callable[[], AbstractAsyncContextManager[AsyncConnection]]) -> None:
        self._begin = begin

    async def read(self, client_id: str, broker: str) -> Remembered | None:
        """Return what is remembered, or None."""
        wanted = select(sessions).where(sessions.c.client_id == client_id, sessions.c.broker == broker)
        async with self._begin() as connection:
            row = (await connection.execute(wanted)).one_or_none()
        return None if row is None else Remembered(row.owner, tuple(row.filters), row.identity, row.identity_at or 0.0)

    async def write(self, client_id: str, broker: str, remembered: Remembered) -> None:
        """Remember ``remembered`` in the place of what was remembered before."""
        await self._put(client_id, broker, remembered, kept=False)

    async def keep(self, client_id: str, broker: str, remembered: Remembered) -> bool:
        """Remember ``remembered``, unless another owner is remembered. Return whether it is remembered now."""
        return await self._put(client_id, broker, remembered, kept=True)

    async def _put(self, client_id: str, broker: str, remembered: Remembered, *, kept: bool) -> bool:
        """Change the row in its place, so that it waits for the transactions that rely on its owner (see ``Packets``)."""
        row = {
            "client_id": client_id,
            "broker": broker,
            "owner": remembered.owner,
            "filters": list(remembered.filters),
            "changed_at": datetime.now(UTC),
            "identity": remembered.identity,
            "identity_at": remembered.identity_at,
        }
        async with self._begin() as connection:
            statement = conflict_insert(connection.dialect.name, sessions).values(row)
            new = statement.excluded
            statement = statement.on_conflict_do_update(
                index_elements=[sessions.c.client_id, sessions.c.broker],
                set_={name: new[name] for name in row if name not in {"client_id", "broker"}},
                where=sessions.c.owner == new.owner if kept else None,
            )
            return bool((await connection.execute(statement)).rowcount)


class SessionFile:
    """Sessions in a JSON file, for applications without a database."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self, client_id: str, broker: str) -> Remembered | None:
        """Return what is remembered, or None."""
        found = (await asyncio.to_thread(self._load)).get(f"{client_id} {broker}")
        return None if found is None else Remembered(**found | {"filters": tuple(found["filters"])})

    async def write(self, client_id: str, broker: str, remembered: Remembered) -> None:
        """Remember ``remembered`` in the place of what was remembered before."""
        await asyncio.to_thread(self._save, f"{client_id} {broker}", remembered, kept=False)

    async def keep(self, client_id: str, broker: str, remembered: Remembered) -> bool:
        """Remember ``remembered``, unless another owner is remembered. Return whether it is remembered now."""
        return await asyncio.to_thread(self._save, f"{client_id} {broker}", remembered, kept=True)

    def _load(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _save(self, key: str, remembered: Remembered, *, kept: bool) -> bool:
        with locked(self._path):
            entries = self._load()
            if kept and entries.get(key, {}).get("owner", remembered.owner) != remembered.owner:
                return False
            entries[key] = asdict(remembered)
            replace_text(self._path, json.dumps(entries, indent=1))
            return True


class Fence:
    """Keeps a process that does not hold its session any more from committing what came in it.

    - ``owner``: the word by which the process holds it in the table ``routemq_sessions``.
    - ``lost``: is called when that is no longer so.
    """

    def __init__(self, owner: str, lost: Callable[[], None]) -> None:
        self.owner = owner
        self._lost = lost

    async def check(self, connection: AsyncConnection, client_id: str, broker: str) -> None:
        """Raise SessionTakenOverError if another process holds the session."""
        wanted = select(sessions.c.owner).where(sessions.c.client_id == client_id, sessions.c.broker == broker)
        if (await connection.execute(wanted)).scalar_one_or_none() != self.owner:
            self._lost()
            raise SessionTakenOverError(f"another process holds the session of {client_id} at {broker} now")


class SessionRecord:
    """This process's hold on the session of ``client_id`` at ``broker``, remembered in ``store``.

    ``before`` is what was remembered before this process took the session.
    """

    def __init__(self, store: SessionStore, client_id: str, broker: str) -> None:
        self._store = store
        self._client_id = client_id
        self._broker = broker
        self._filters: tuple[str, ...] = ()
        self._lock = asyncio.Lock()
        self._remembered = Remembered(secrets.token_hex(8), ())
        self.before = Remembered("", ())

    @property
    def owner(self) -> str:
        """The word of this process."""
        return self._remembered.owner

    async def take(self, filters: Iterable[str]) -> list[str]:
        """Make the session this process's, with ``filters`` to be subscribed. Return its filters that are to go.

        These are remembered until they are unsubscribed. Raise what the storage raises.
        """
        self._filters = tuple(filters)
        self.before = await self._store.read(self._client_id, self._broker) or self.before
        stale = sorted(set(self.before.filters) - set(self._filters))
        own = replace(self.before, owner=self._remembered.owner, filters=(*self._filters, *stale))
        await self._store.write(self._client_id, self._broker, own)
        self._remembered = own
        return stale

    async def subscribed(self) -> None:
        """Record that the session has the wanted filters and no others. Raise what the storage raises."""
        async with self._lock:
            await self._write(replace(self._remembered, filters=self._filters))

    async def identified(self, identity: str) -> None:
        """Record what the broker does with packet identifiers. Raise what the storage raises."""
        async with self._lock:
            await self._write(replace(self._remembered, identity=identity, identity_at=time()))

    async def _write(self, remembered: Remembered) -> None:
        # What another process has written there holds. The next connection finds that out.
        if await self._store.keep(self._client_id, self._broker, remembered):
            self._remembered = remembered

    async def is_held(self) -> bool:
        """Return whether this process still holds the session. Raise what the storage raises."""
        found = await self._store.read(self._client_id, self._broker)
        return found is None or found.owner == self._remembered.owner
