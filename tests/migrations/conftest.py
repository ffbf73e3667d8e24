"""A database of each kind, and a history of migrations in a folder of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from textwrap import dedent

import pytest

from core.database.engine import Database
from core.database.migrations.history import History, application_history
from tests.application.conftest import project  # noqa: F401 - a fixture
from tests.support.postgres import postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path}/test.db" if request.param == "sqlite" else postgres().new_database()


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    one = Database(url)
    yield one
    await one.close()


@pytest.fixture
def history(tmp_path: Path) -> History:
    return application_history(tmp_path / "a 100% project")


def write(history: History, name: str, down: str | None, up: str, back: str = "pass") -> None:
    """Write a revision."""
    history.versions.mkdir(parents=True, exist_ok=True)
    lines = ["import sqlalchemy as sa", "from alembic import op", "", f"revision = {name!r}", f"down_revision = {down!r}"]
    for function, body in (("upgrade", up), ("downgrade", back)):
        lines += ["", "", f"def {function}():", *(f"    {line}" for line in dedent(body).strip().splitlines())]
    (history.versions / f"{name}.py").write_text("\n".join([*lines, ""]))
