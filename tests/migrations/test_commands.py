"""The commands in a project of its own, and what run does with a database that lacks migrations."""

from __future__ import annotations

import asyncio

from tests.support.postgres import fetch, postgres
from tests.support.worker import Project, Projects

ROUTER = """
    from core.router import Router

    router = Router()
    router.on("things/<thing>", lambda context: None)
    """
THING = """
    from sqlalchemy.orm import Mapped, mapped_column

    from core.model import Base


    class Thing(Base):
        __tablename__ = "things"

        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
    """
PLACED = THING + "    place: Mapped[str | None]\n    "
FIRST = """
    import sqlalchemy as sa
    from alembic import op

    revision = "0001_things"
    down_revision = None


    def upgrade():
        op.create_table("things", sa.Column("id", sa.Integer(), primary_key=True), sa.Column("name", sa.String()))
        op.execute("INSERT INTO things VALUES (1, 'first')")


    def downgrade():
        op.drop_table("things")
    """


def set_model(one: Project, source: str) -> None:
    Project(one.folder, {"things": ROUTER}, {"thing": source})


def set_first(one: Project) -> None:
    folder = one.folder / "migrations" / "versions"
    folder.mkdir(parents=True)
    (folder / "0001_things.py").write_text(FIRST.replace("\n    ", "\n"))


async def test_from_a_new_column_to_a_rollback(project: Projects) -> None:
    one = project({"things": ROUTER}, {"thing": THING})
    # The first minute needs no command.
    worker = await one.start().ready()
    assert await worker.stop() == 0
    assert one.rows("SELECT count(*) FROM things") == [(0,)]
    code, said = await one.command("db", "check")
    assert (code, said.splitlines()[0]) == (1, "table things: in the models, not in the migrations")
    code, said = await one.command("db", "revision", "-m", "create things")
    assert (code, "wrote migrations/versions/0001_create_things.py" in said) == (0, True), said
    worker = await one.start().ready()
    assert "took 0001_create_things as done" in worker.output
    assert await worker.stop() == 0
    # A column is changed without a migration, then with one.
    set_model(one, PLACED)
    code, said = await one.command("db", "check")
    assert (code, said.splitlines()[0]) == (1, "column things.place: in the models, not in the migrations")
    code, said = await one.command("db", "revision", "-m", "where things are")
    assert (code, "0002_where_things_are.py" in said) == (0, True)
    assert await one.command("db", "check") == (0, "the models are what the migrations make\n")
    code, said = await one.command("db", "current")
    assert said.split("\n")[0].split() == ["application", "0001_create_things,", "lacks", "0002_where_things_are"]
    assert await one.command("db", "upgrade") == (0, "upgraded to 0002_where_things_are\n")
    assert await one.command("db", "upgrade") == (0, "nothing to do: the database is at 0002_where_things_are\n")
    assert one.rows("SELECT place FROM things") == []
    code, said = await one.command("db", "downgrade", "-1")
    assert (code, said) == (0, "took back 0002_where_things_are\n")
    code, said = await one.command("db", "history")
    assert [line.split()[:2] for line in said.splitlines()] == [
        ["application"],
        ["done", "0001_create_things"],
        ["pending", "0002_where_things_are"],
        ["routemq"],
        ["done", "0001_first"],
        ["done", "0002_dead_letters_once"],
        ["done", "0003_generations"],
        ["done", "0004_backlog"],
    ]


async def test_run_stops_before_migrations_that_it_may_not_run(project: Projects) -> None:
    url = postgres().new_database()
    one = project({"things": ROUTER}, {"thing": THING}, DATABASE_URL=url)
    set_first(one)
    code, said = await one.command("run")
    assert code == 1
    (line,) = said.splitlines()
    assert line.startswith("error: the database postgresql+asyncpg://")
    assert line.endswith(" lacks the migration 0001_things: run python main.py db upgrade, or set DB_AUTO_MIGRATE=true")
    code, said = await one.command("doctor")
    assert (code, "the database lacks 0001_things: run python main.py db upgrade" in said) == (1, True)
    assert (await one.command("dead-letters", "list"))[0] == 0
    assert await one.command("db", "upgrade") == (0, "upgraded to 0001_things\n")
    worker = await one.start().ready()
    assert await worker.stop() == 0
    # A model without a migration is not passed over either.
    Project(one.folder, {"things": ROUTER}, {"other": THING.replace("hing", "her")})
    code, said = await one.command("run")
    assert (code, "has no table thers" in said, "db revision -m" in said) == (1, True, True), said
    (one.folder / "app" / "models" / "other.py").unlink()
    await fetch(url, "UPDATE alembic_version SET version_num = '0007_of_another_time'")
    code, said = await one.command("run")
    assert (code, "0007_of_another_time" in said, len(said.splitlines())) == (1, True, 1)


async def test_four_that_start_at_once_migrate_once(project: Projects) -> None:
    for url in (postgres().new_database(), ""):
        one = project({"things": ROUTER}, {"thing": THING}, DB_AUTO_MIGRATE="true")
        set_first(one)
        if url:
            one.set(DATABASE_URL=url)
        workers = [one.start("db", "upgrade"), one.start("db", "upgrade"), one.start("doctor"), one.start("run")]
        await workers.pop().ready()
        codes = await asyncio.gather(*(worker.ended() for worker in workers))
        assert codes == [0, 0, 0], [worker.output for worker in workers]
        found = await fetch(url, "SELECT name FROM things") if url else one.rows("SELECT name FROM things")
        assert found == [("first",)]


async def test_a_failure_is_one_line_and_leaves_nothing(project: Projects) -> None:
    one = project({"things": ROUTER}, {"thing": THING})
    set_first(one)
    file = one.folder / "migrations" / "versions" / "0001_things.py"
    file.write_text(file.read_text().replace("INSERT INTO things", "INSERT INTO nowhere"))
    for command in (("db", "upgrade"), ("run",)):
        code, said = await one.command(*command)
        assert code == 1
        told = "error: the migration 0001_things.py, line 11, failed and was rolled back: "
        assert said == told + "OperationalError: no such table: nowhere\n"
    assert one.rows("SELECT name FROM sqlite_master WHERE name = 'things'") == []
    one.set(DATABASE_URL="")
    code, said = await one.command("db", "upgrade")
    assert (code, said) == (1, "error: DATABASE_URL is empty, so there is nothing to migrate\n")


async def test_the_example_has_its_migrations(project: Projects) -> None:
    assert await project(DATABASE_URL="sqlite+aiosqlite://").command("db", "check") == (
        0,
        "the models are what the migrations make\n",
    )
