"""Databases for tests: each test runs on SQLite and on PostgreSQL, on a database of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import event

from core.database.current import configured
from core.model import Model
from tests.support.postgres import postgres

M = TypeVar("M")


def url_of(kind: str, folder: Path) -> str:
    return postgres().new_database() if kind == "postgresql" else f"sqlite+aiosqlite:///{folder}/test.db"


def there(row: M | None) -> M:
    """Return ``row``, which a call has to have found."""
    assert row is not None
    return row


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request.param, tmp_path)


@pytest.fixture
async def database(url: str) -> AsyncIterator[str]:
    """Model, configured and empty; gives the URL."""
    Model.configure(url)
    yield url
    await Model.close()


@pytest.fixture
def statements(database: str) -> Iterator[list[str]]:
    """The statements that were sent."""
    seen: list[str] = []
    engine = configured().engine.sync_engine

    def listen(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", listen)
    yield seen
    event.remove(engine, "before_cursor_execute", listen)
