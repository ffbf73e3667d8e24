"""What Model.configure takes, and what it says of the rest."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from core.errors import SettingsError
from core.model import Model


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:secret@h/db", r"Write postgresql\+asyncpg://"),
        ("postgres://u:secret@h/db", r"Write postgresql\+asyncpg://"),
        ("sqlite:///x.db", r"Write sqlite\+aiosqlite://"),
        ("oracl://u:secret@h/db", "there is no database 'oracl'"),
        ("postgresql+psycopg2://u:secret@h/db", "is not asynchronous"),
        ("mysql+asyncmy://u:secret@h/db", "pip install asyncmy"),
        ("nothing of the kind", "not a URL"),
        ("u:secret@h", "not a URL"),
    ],
)
def test_a_url_that_cannot_be_is_refused_in_one_line_without_its_password(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as raised:
        Model.configure(url)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "pooler", "said"),
    [
        ("postgresql+asyncpg://u:secret@h/db", "session", "DB_POOLER=session is not known"),
        ("sqlite+aiosqlite://", "transaction", r"is for postgresql\+asyncpg"),
    ],
)
def test_a_pooler_that_cannot_be_is_refused(url: str, pooler: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Model.configure(url, pooler=pooler)


async def test_configuring_again_uses_the_new_database(tmp_path: Path) -> None:
    Model.configure(f"sqlite+aiosqlite:///{tmp_path}/one.db")
    await Model.ping()
    Model.configure(f"sqlite+aiosqlite:///{tmp_path}/folder/two.db", pool_size=3)
    assert Model._is_enabled
    await Model.ping()
    assert (tmp_path / "folder" / "two.db").exists()
    Model.configure("")
    assert not Model._is_enabled
    assert Model._engine is None
    await Model.close()


async def test_sqlite_in_memory_is_one_database() -> None:
    Model.configure("sqlite+aiosqlite://")
    async with Model.session() as session:
        connection = await session.connection()
        await connection.exec_driver_sql("CREATE TABLE t (x)")
        await session.commit()
    async with Model.session() as session:
        await (await session.connection()).exec_driver_sql("INSERT INTO t VALUES (1)")
    await Model.close()


def test_the_types_are_the_models_own(tmp_path: Path) -> None:
    snippet = tmp_path / "typed.py"
    snippet.write_text(
        textwrap.dedent("""
        from sqlalchemy.orm import Mapped, mapped_column

        from core.model import Base, Model, Page

        class Reading(Base):
            __tablename__ = "typed_readings"
            id: Mapped[int] = mapped_column(primary_key=True)
            value: Mapped[float]

        class Odd(Model):
            __tablename__ = "typed_odds"
            id: Mapped[int] = mapped_column(primary_key=True)
            count: Mapped[int]
            all: Mapped[str]

        async def check() -> None:
            made: Reading = await Model.create(Reading, value=1.0)
            found: Reading | None = await Model.find(Reading, 1)
            many: list[Reading] = await Model.where(Reading, Reading.value > 1, order_by=Reading.id)
            page: Page[Reading] = await Model.paginate(Reading)
            number: int = (await Model.create(Odd, count=1, all="x")).count
            wrong: int = await Model.create(Reading, value=1.0)
        """)
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(snippet)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named mypy" in done.stderr:
        pytest.skip("mypy is not installed")
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1, done.stdout
    line = int(errors[0].split(":")[1])
    assert "wrong: int" in snippet.read_text().splitlines()[line - 1]
