"""Application keys: a message whose key was seen before is not handled again, whoever sent it a second time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete

from core.database import transaction
from core.database.statements.conflict import conflict_insert
from core.database.statements.gather import KeyedStatement
from core.errors import MessageError
from core.middleware import Passed
from core.records.tables import dedup

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

    from core.middleware import Handler

TRIM_EVERY = 60.0
"""Seconds."""


class _Seen(KeyedStatement):
    """Inserts routes and keys by INSERT ... ON CONFLICT DO NOTHING. The result says which of them were new."""

    def key(self, value: Any) -> Hashable:
        """Return the key itself. The same key must not be in one statement twice: the second must see the first's row."""
        return value  # type: ignore[no-any-return]

    def order(self, values: Sequence[Any]) -> Sequence[int]:
        """Return the places of the keys in sorted order, so that several workers do not deadlock."""
        return sorted(range(len(values)), key=values.__getitem__)

    async def run(self, session: AsyncSession, values: Sequence[tuple[str, str]]) -> Sequence[bool]:
        """Return, for each key, whether it was new."""
        now = datetime.now(UTC)
        statement = conflict_insert(session.get_bind().dialect.name, dedup).on_conflict_do_nothing()
        rows = [{"route": route, "key": key, "seen_at": now} for route, key in values]
        found = await session.execute(statement.returning(dedup.c.route, dedup.c.key), rows)
        new = {(route, key) for route, key in found}
        return [value in new for value in values]


_SEEN = _Seen()


def once(handler: Handler, route: str, key: str | Callable[[Any], Any]) -> Handler:
    """Return a handler that runs ``handler`` for new keys only.

    - ``handler``: the handler of the route, within its middleware.
    - ``route``: the name of the route. Each route has keys of its own.
    - ``key``: a path into the payload such as "meta.id", or a function of the context that returns the key.

    A message without a key raises MessageError.
    """
    of = key if callable(key) else _path(key)

    async def call(context: Any) -> Any:
        value = of(context)
        if value is None:
            raise MessageError(f"dedup={key!r}: the message has no key there")
        writes = transaction.writes()
        if writes is None or not await writes.call(_SEEN, (route, str(value))):
            return Passed.DUPLICATE
        return await handler(context)

    return call


def _path(path: str) -> Callable[[Any], Any]:
    names = path.split(".")

    def of(context: Any) -> Any:
        value = context["payload"]
        for name in names:
            value = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
        return value

    return of


class Trim:
    """Deletes keys that were seen more than ``keep`` seconds ago, once a minute at most."""

    def __init__(self, keep: float) -> None:
        self._keep = timedelta(seconds=keep)
        self._last = monotonic()

    async def trim(self, session: AsyncSession) -> None:
        """Delete old keys in the transaction of ``session``, if the last time is a minute ago."""
        if monotonic() - self._last >= TRIM_EVERY:
            self._last = monotonic()
            await session.execute(delete(dedup).where(dedup.c.seen_at < datetime.now(UTC) - self._keep))
