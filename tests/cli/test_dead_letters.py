"""dead-letters: looked at, run again, dropped."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from tests.support.waiting import until
from tests.support.worker import Projects, Publishers, clean_environment

BROKEN = """
from app.models.thing import Thing
from core.model import Model
from core.router import Router

router = Router()

@router.on("things/<name>", name="things")
async def store(context):
    if context["payload"]["value"] < 0:
        raise ValueError("below zero")
    await Model.create(Thing, name=context["params"]["name"], value=context["payload"]["value"], attempt=context["attempt"])

@router.on("files/<name>", name="files", codec="raw")
async def files(context):
    with open("files.txt", "a") as file:
        file.write(context["params"]["name"] + "\\n")
    if context["params"]["name"] == "bad":
        raise ValueError("bad")
"""
FIXED = BROKEN.replace('raise ValueError("below zero")', "context['payload']['value'] = 0").replace('== "bad"', '== "worse"')
THING = """
from sqlalchemy.orm import Mapped, mapped_column
from core.model import Base

class Thing(Base):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    value: Mapped[int]
    attempt: Mapped[int]
"""


async def test_they_are_run_again_after_the_fix_and_leave_the_table_when_they_succeed(
    project: Projects, publisher: Publishers
) -> None:
    one = project({"things": BROKEN}, {"thing": THING}, RETRY_ATTEMPTS=2, RETRY_FIRST=0.01)
    worker = await one.start().ready()
    out = await publisher(one)
    for name, value in (("a", 1), ("b", -1), ("c", -2), ("a", 3)):
        await out.publish(f"things/{name}", b'{"value": %d}' % value, qos=1)
    await out.publish("things/d", b"nonsense", qos=1)
    await until(lambda: one.count("routemq_dead_letters") == 4)
    assert await worker.stop() == 0

    code, said = await one.command("dead-letters", "list")
    assert code == 0
    assert said.splitlines()[-1] == "4 dead letters"
    assert "ValueError: below zero" in said
    assert "IntegrityError" in said
    code, said = await one.command("dead-letters", "list", "--limit", "1")
    assert said.splitlines()[-1] == "1 of 4 dead letters"
    number = next(row[0] for row in one.rows("SELECT id FROM routemq_dead_letters WHERE topic = 'things/b'"))
    code, said = await one.command("dead-letters", "show", str(number))
    assert code == 0
    for part in ("topic      things/b", "attempts   2", '{"value": -1}', 'raise ValueError("below zero")'):
        assert part in said

    (one.folder / "app" / "routers" / "things.py").write_text(FIXED)
    code, said = await one.command("dead-letters", "replay", "--route", "things")
    assert code == 1
    assert "2 replayed and removed, 2 kept after failing again" in said
    assert sorted(one.rows("SELECT name, value, attempt FROM things")) == [("a", 1, 1), ("b", 0, 3), ("c", 0, 3)]
    left = [row[0] for row in one.rows("SELECT topic FROM routemq_dead_letters ORDER BY id")]
    assert sorted(left) == ["things/a", "things/d"]

    number = next(row[0] for row in one.rows("SELECT id FROM routemq_dead_letters WHERE topic = 'things/d'"))
    assert await one.command("dead-letters", "drop", str(number)) == (0, "1 dropped\n")
    assert await one.command("dead-letters", "drop", "--all") == (0, "1 dropped\n")
    assert await one.command("dead-letters", "list") == (0, "0 dead letters\n")


async def test_without_a_database_they_are_in_the_file(project: Projects, publisher: Publishers) -> None:
    one = project({"things": BROKEN}, {"thing": THING}, RETRY_ATTEMPTS=1, DATABASE_URL="")
    worker = await one.start().ready()
    out = await publisher(one)
    for name in ("good", "bad", "bad", "good"):
        await out.publish(f"files/{name}", b"\x00\xff", qos=1)
    await until(lambda: (one.folder / "files.txt").exists() and len((one.folder / "files.txt").read_text().split()) == 4)
    assert await worker.stop() == 0
    assert "2 dead-lettered" in worker.output
    _, said = await one.command("dead-letters", "list")
    assert said.splitlines()[-1] == "2 dead letters"
    narrow = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "main.py", "dead-letters", "list"],
        cwd=one.folder, env=clean_environment() | {"COLUMNS": "60"}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    # On a narrow terminal the rest gives way to the id and the time.
    assert [line.split()[:1] for line in narrow.stdout.splitlines()[:3]] == [["id"], ["1"], ["2"]]
    _, said = await one.command("dead-letters", "show", "2")
    assert "00 ff" in said
    (one.folder / "app" / "routers" / "things.py").write_text(FIXED)
    assert await one.command("dead-letters", "replay", "1") == (0, "1 replayed and removed, 0 kept after failing again\n")
    assert await one.command("dead-letters", "replay", "--all") == (
        0,
        "1 replayed and removed, 0 kept after failing again\n",
    )
    assert await one.command("dead-letters", "list") == (0, "0 dead letters\n")


async def test_while_the_database_is_away_nothing_is_replayed_and_nothing_lost(
    project: Projects, publisher: Publishers
) -> None:
    one = project({"things": BROKEN}, {"thing": THING}, RETRY_ATTEMPTS=1)
    await one.start().ready()
    await (await publisher(one)).publish("things/a", b"nonsense", qos=1)
    await until(lambda: one.count("routemq_dead_letters") == 1)
    (one.folder / "app" / "routers" / "things.py").write_text(
        "from core.errors import DatabaseUnreachableError\nfrom core.router import Router\n\nrouter = Router()\n\n\n"
        '@router.on("things/<n>", codec="raw")\nasync def store(context):\n    raise DatabaseUnreachableError("away")\n'
    )
    code, said = await one.command("dead-letters", "replay", "--all")
    assert code == 1
    assert "stopped after 0 at dead letter 1" in said
    assert one.count("routemq_dead_letters") == 1


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["replay"], "--all"),
        (["replay", "1", "--all"], "either"),
        (["show", "7"], "there is no dead letter 7"),
        (["replay", "7"], "there is no dead letter 7"),
        (["drop"], "--all"),
    ],
)
async def test_what_cannot_be_is_one_line(project: Projects, arguments: list[str], part: str) -> None:
    code, said = await project().command("dead-letters", *arguments)
    assert code == 1
    assert part in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
