"""INSERT ... ON CONFLICT, which PostgreSQL and SQLite have each in a form of its own."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects import postgresql, sqlite

_INSERTS: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


def conflict_insert(backend: str, into: Any) -> Any:
    """Return an INSERT ``into`` a table or a model that takes ``on_conflict_do_nothing`` and ``on_conflict_do_update``.

    ``backend`` is the name of the database, such as "postgresql". Return None for a database that has no such statement.
    """
    insert = _INSERTS.get(backend)
    return None if insert is None else insert(into)
