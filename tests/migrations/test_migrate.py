"""Forward and back along a history, on a real SQLite file and a real PostgreSQL."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, text

from core.database.engine import Database
from core.database.migrations import migrate
from core.database.migrations.history import History
from core.database.pool import PoolOptions
from core.errors import MigrationError
from tests.migrations.conftest import write
from tests.support.postgres import postgres

NONE = MetaData()


async def rows(database: Database, sql: str) -> list[tuple[Any, ...]]:
    async with database.engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(sql))]


async def upgraded(database: Database, history: History, to: str = "head") -> list[str]:
    said: list[str] = []
    await migrate.upgrade(database, history, NONE, said.append, to)
    return said


def parents_and_children(history: History) -> None:
    write(
        history,
        "0001_tables",
        None,
        """
        op.create_table("parents", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(10)))
        op.create_table(
            "children",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("parent_id", sa.Integer, sa.ForeignKey("parents.id", ondelete="CASCADE"), nullable=False),
        )
        op.execute("INSERT INTO parents VALUES (1, 'a'), (2, 'b')")
        op.execute("INSERT INTO children VALUES (1, 1), (2, 1), (3, 2)")
        """,
        'op.drop_table("children")\nop.drop_table("parents")',
    )


ALTER = """
with op.batch_alter_table("parents") as batch:
    batch.alter_column("name", existing_type=sa.String(10), type_=sa.Text, nullable=False)
"""
ALTER_BACK = """
with op.batch_alter_table("parents") as batch:
    batch.alter_column("name", existing_type=sa.Text, type_=sa.String(10), nullable=True)
"""


async def test_forward_and_back_one_by_one_and_at_once(database: Database, history: History) -> None:
    parents_and_children(history)
    write(history, "0002_name", "0001_tables", ALTER, ALTER_BACK)
    assert [each.revision for each in await migrate.pending(database, history)] == ["0001_tables", "0002_name"]
    assert await upgraded(database, history, "0001_tables") == ["upgraded to 0001_tables"]
    assert await migrate.at(database, history) == ("0001_tables",)
    assert await upgraded(database, history) == ["upgraded to 0002_name"]
    assert await upgraded(database, history) == []
    said: list[str] = []
    await migrate.downgrade(database, history, "-1", said.append)
    assert (said, await migrate.at(database, history)) == (["took back 0002_name"], ("0001_tables",))
    await migrate.downgrade(database, history, "base", said.append)
    assert (said[1:], await migrate.at(database, history)) == (["took back 0001_tables"], ())
    assert await upgraded(database, history) == ["upgraded to 0001_tables", "upgraded to 0002_name"]


async def test_a_parent_table_is_altered_and_its_children_stay(database: Database, history: History) -> None:
    parents_and_children(history)
    write(history, "0002_name", "0001_tables", ALTER)
    await upgraded(database, history)
    assert await rows(database, "SELECT count(*) FROM children") == [(3,)]
    # The connection that goes back to the pool enforces them again.
    async with database.begin() as connection:
        await connection.execute(text("DELETE FROM parents WHERE id = 1"))
    assert await rows(database, "SELECT id FROM children") == [(3,)]


async def test_a_migration_that_breaks_a_foreign_key_is_rolled_back(database: Database, history: History) -> None:
    parents_and_children(history)
    await upgraded(database, history)
    write(history, "0002_orphans", "0001_tables", 'op.execute("INSERT INTO children VALUES (4, 77)")')
    with pytest.raises(MigrationError, match="rolled back"):
        await upgraded(database, history)
    assert await rows(database, "SELECT count(*) FROM children") == [(3,)]
    assert await migrate.at(database, history) == ("0001_tables",)


@pytest.mark.parametrize("fault", ['op.execute("SELECT no_such_column FROM parents")', "1 / 0"])
async def test_a_migration_that_fails_half_way_leaves_the_database_as_it_was(
    database: Database, history: History, fault: str
) -> None:
    parents_and_children(history)
    await upgraded(database, history)
    write(history, "0002_more", "0001_tables", 'op.create_table("more", sa.Column("id", sa.Integer))')
    write(history, "0003_fails", "0002_more", "op.execute(\"INSERT INTO parents VALUES (3, 'c')\")" + ALTER + fault + "\n")
    with pytest.raises(MigrationError, match=r"the migration 0003_fails\.py, line \d+, failed and was rolled back") as told:
        await upgraded(database, history)
    assert "\n" not in str(told.value)
    assert await migrate.at(database, history) == ("0001_tables",)
    assert await rows(database, "SELECT * FROM parents ORDER BY id") == [(1, "a"), (2, "b")]
    assert await migrate.missing_tables(database, table_named("more")) == ["more"]
    # Nullable as before.
    async with database.begin() as connection:
        await connection.execute(text("INSERT INTO parents VALUES (4, NULL)"))


def table_named(name: str) -> MetaData:
    metadata = MetaData()
    Table(name, metadata, Column("id", Integer))
    return metadata


async def test_several_at_once_run_each_migration_once(url: str, history: History) -> None:
    parents_and_children(history)
    write(history, "0002_row", "0001_tables", "op.execute(\"INSERT INTO parents VALUES (3, 'c')\")")
    databases = [Database(url) for _ in range(5)]
    said = await asyncio.gather(*(upgraded(each, history) for each in databases))
    assert sorted(map(len, said)) == [0, 0, 0, 0, 2]
    assert await rows(databases[0], "SELECT count(*) FROM parents") == [(3,)]
    for each in databases:
        await each.close()


async def test_what_postgresql_does_in_no_transaction_can_be_done(database: Database, history: History) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has nothing of the kind")
    parents_and_children(history)
    body = 'with op.get_context().autocommit_block():\n    op.execute("CREATE INDEX CONCURRENTLY by_name ON parents (name)")'
    write(history, "0002_index", "0001_tables", body)
    async with asyncio.timeout(20):
        assert len(await upgraded(database, history)) == 2
    assert await rows(database, "SELECT 1 FROM pg_indexes WHERE indexname = 'by_name'") == [(1,)]


async def test_a_migration_may_take_longer_than_other_statements(history: History) -> None:
    database = Database(postgres().new_database(), PoolOptions(statement_timeout=0.2))
    write(history, "0001_slow", None, 'op.execute("SELECT pg_sleep(0.8)")')
    assert len(await upgraded(database, history)) == 1
    await database.close()


async def test_a_database_of_another_time_is_told(database: Database, history: History) -> None:
    parents_and_children(history)
    write(history, "0002_gone", "0001_tables", "pass")
    await upgraded(database, history)
    (history.versions / "0002_gone.py").unlink()
    for call in (
        migrate.pending(database, history),
        upgraded(database, history),
        migrate.downgrade(database, history, "base", print),
    ):
        with pytest.raises(MigrationError, match="0002_gone"):
            await call


async def test_what_is_wrong_with_the_files_is_one_line(database: Database, history: History) -> None:
    parents_and_children(history)
    write(history, "0002_a", "0001_tables", "pass")
    write(history, "0002_b", "0001_tables", "pass")
    with pytest.raises(MigrationError, match="2 ends, 0002_a and 0002_b"):
        history.revisions()
    (history.versions / "0002_b.py").write_text("import nothing_of_the_kind\n")
    with pytest.raises(MigrationError, match=r"0002_b\.py, line 1, cannot be loaded: .*nothing_of_the_kind"):
        history.revisions()
    (history.versions / "0002_b.py").write_text("def (\n")
    with pytest.raises(MigrationError, match=r"0002_b\.py, line 1, cannot be loaded: .*SyntaxError"):
        history.revisions()
    (history.versions / "0002_b.py").unlink()
    with pytest.raises(MigrationError, match="nonsense"):
        await upgraded(database, history, "nonsense")
