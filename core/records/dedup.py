"""Application keys: a message whose key was seen before is not handled again, whoever sent it twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete
from sqlalchemy.dialects import postgresql, sqlite

from core.database import transaction
from core.database.statements.gather import Kind
from core.errors import MessageError
from core.middleware import Passed
from core.records.tables import dedup

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

    from core.middleware import Handler

TRIM_EVERY = 60.0
_INSERT: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


class _Seen(Kind):
    """INSERT ... ON CONFLICT DO NOTHING of routes and keys; the result says which were new."""

    def apart(self, value: Any) -> Hashable:
        """Keep the same key apart: the second one must see the row of the first."""
        return value  # type: ignore[no-any-return]

    def order(self, values: Sequence[Any]) -> list[int]:
        """Sorted, so that several workers do not deadlock."""
        return sorted(range(len(values)), key=values.__getitem__)

    async def run(self, session: AsyncSession, values: Sequence[tuple[str, str]]) -> Sequence[bool]:
        """Say for each key whether it was new."""
        now = datetime.now(UTC)
        statement = _INSERT[session.get_bind().dialect.name](dedup).on_conflict_do_nothing()
        rows = [{"route": route, "key": key, "seen_at": now} for route, key in values]
        found = await session.execute(statement.returning(dedup.c.route, dedup.c.key), rows)
        new = {(route, key) for route, key in found}
        return [value in new for value in values]


_SEEN = _Seen()


def once(handler: Handler, route: str, key: str | Callable[[Any], Any]) -> Handler:
    """Give a handler that runs ``handler`` for new keys only; ``key`` is a path into the payload, or takes the context."""
    of = key if callable(key) else _path(key)

    async def call(context: Any) -> Any:
        value = of(context)
        if value is None:
            raise MessageError(f"dedup={key!r}: the message has no such key")
        gathers = transaction.gathers()
        if gathers is None or not await gathers[0].call(_SEEN, (route, str(value))):
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
    """Deletes keys that were seen longer ago than ``keep`` seconds, once a minute at most."""

    def __init__(self, keep: float) -> None:
        self._keep = timedelta(seconds=keep)
        self._last = monotonic()

    async def trim(self, session: AsyncSession) -> None:
        """Delete in the transaction of ``session``, if it is time."""
        if monotonic() - self._last >= TRIM_EVERY:
            self._last = monotonic()
            await session.execute(delete(dedup).where(dedup.c.seen_at < datetime.now(UTC) - self._keep))
