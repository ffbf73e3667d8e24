"""The shell: piped scripts, and the prompt on a terminal."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from tests.support.waiting import until
from tests.support.worker import Project, Projects, clean_environment

THING = """
from sqlalchemy.orm import Mapped, mapped_column
from core.model import Base

class Thing(Base):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int]
"""
THINGS = """
from app.models.thing import Thing
from core.model import Model
from core.router import Router

router = Router()

@router.on("things/<name>", delivery="{delivery}")
async def store(context):
    thing = await Model.create(Thing, value=context["payload"]["value"])
    await context["publish"]("stored/" + context["params"]["name"], {{"id": thing.id}})
    return thing.to_dict()
"""


async def run(one: Project, script: str) -> tuple[int, str]:
    """Run the shell with ``script`` on its standard input; give its exit code and output."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "main.py", "shell"],
        input=script,
        cwd=one.folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


SCRIPT = """
import asyncio

async def total():
    # A gap within a function ends no statement.

    things = await Model.all(Thing)
    return sum(thing.value for thing in things)

for value in (1, 2):
    await send("things/a", {"value": value})
await total()
[thing async for thing in await Model.all(Thing)] if False else "comprehended"
async with Model.session() as session:
    print((await session.execute(select(func.count()).select_from(Thing))).scalar_one(), "rows")
router.routes[0].name, settings.log_level
"""


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_a_script_runs_messages_through_the_application(project: Projects, delivery: str) -> None:
    one = project({"things": THINGS.format(delivery=delivery)}, {"thing": THING})
    code, said = await run(one, SCRIPT)
    assert (code, said.splitlines()) == (
        0,
        [
            "published stored/a: {'id': 1}",
            "{'id': 1, 'value': 1}",
            "published stored/a: {'id': 2}",
            "{'id': 2, 'value': 2}",
            "3",
            "'comprehended'",
            "2 rows",
            "('things/<name>', 'INFO')",
        ],
    )
    assert one.rows("SELECT value FROM things ORDER BY id") == [(1,), (2,)]


async def test_a_failure_ends_a_script_with_1_and_shows_where(project: Projects) -> None:
    one = project({"things": THINGS.format(delivery="at_least_once")}, {"thing": THING})
    code, said = await run(one, 'print("before")\nawait send("things/a", {"other": 1})\nprint("after")\n')
    assert code == 1
    assert "before" in said
    assert "after" not in said
    assert said.count("Traceback") == 1
    assert 'File "<shell>", line 2' in said
    assert said.splitlines()[-1] == "KeyError: 'value'"
    assert "now a dead letter: KeyError" in said
    code, said = await run(one, 'await send("things/a", b"{")\n')
    assert (code, "now a dead letter: PayloadError" in said) == (1, True)
    assert one.count("routemq_dead_letters") == 2
    code, said = await run(one, "print('before')\nx = (\n")
    assert (code, "SyntaxError" in said, "before" in said) == (1, True, False)
    assert await run(one, "raise SystemExit(7)") == (7, "")


async def test_publish_reaches_the_broker_and_says_when_there_is_none(project: Projects) -> None:
    one = project({"things": THINGS.format(delivery="at_least_once")}, {"thing": THING})
    code, said = await run(one, 'await publish("things/a", {"value": 5})')
    assert code == 1
    assert "BrokerUnreachableError" in said
    await one.start().ready()
    assert await run(one, 'await publish("things/a", {"value": 5})') == (0, "")
    await until(lambda: one.rows("SELECT value FROM things") == [(5,)])
    script = """
from core.publisher import publish as from_anywhere
await send("things/a", {"value": 6})
await request("things/a", {"value": 7})
await from_anywhere("things/a", {"value": 8}, qos=1)
"""
    code, said = await run(one, script)
    assert (code, said.splitlines()[1:]) == (0, ["{'id': 2, 'value': 6}", "{'id': 3, 'value': 7}"])
    await until(lambda: one.rows("SELECT value FROM things ORDER BY id") == [(5,), (6,), (7,), (8,)])


async def test_no_password_is_shown_and_a_database_that_is_away_is_told(project: Projects) -> None:
    url = "postgresql+asyncpg://me:s3cr3t@127.0.0.1:1/x"
    one = project({"things": THINGS.format(delivery="at_least_once")}, {"thing": THING}, DATABASE_URL=url)
    code, said = await run(one, "settings\nawait Model.count(Thing)")
    assert code == 1
    assert "me:***@127.0.0.1:1/x" in said
    assert "s3cr3t" not in said
    assert "DatabaseUnreachableError" in said


async def test_a_broken_router_stops_it_with_its_traceback(project: Projects) -> None:
    code, said = await run(project({"things": "1 / 0"}, {}), "print('here')")
    assert code == 1
    assert "ZeroDivisionError" in said
    assert "here" not in said


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
async def test_on_a_terminal_ctrl_c_stops_a_statement_and_ctrl_d_ends(project: Projects) -> None:
    one = project({"things": THINGS.format(delivery="at_least_once")}, {"thing": THING})
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "main.py", "shell"],
        cwd=one.folder,
        env=clean_environment() | {"TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        # Whoever starts the tests in the background has SIGINT ignored, by all that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no other thread runs here
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    seen = ""

    def sees(text: str) -> bool:
        nonlocal seen
        try:
            seen += os.read(ours, 65536).decode()
        except BlockingIOError:
            pass
        except OSError:
            return not text  # its end is closed
        return text in seen

    async def type_(line: str, answer: str) -> None:
        nonlocal seen
        seen = ""
        os.write(ours, line.encode())
        await until(lambda: sees(answer), what=answer)

    try:
        await until(lambda: sees("\n>>> "))
        assert "models       Thing" in seen
        assert "await send(" in seen
        await type_('await send("things/a", {"value": 4})\n', "{'id': 1, 'value': 4}\r\n>>> ")
        await type_("1 / 0\n", "ZeroDivisionError: division by zero\r\n>>> ")
        # A task goes on while the prompt waits.
        await type_("import asyncio; asyncio.create_task(asyncio.sleep(0.01)).add_done_callback(print)\n", "result=None")
        await type_('print("now"); await asyncio.sleep(60)\n', "now\r\n")
        process.send_signal(signal.SIGINT)
        await type_("", "KeyboardInterrupt\r\n>>> ")
        process.send_signal(signal.SIGINT)
        await type_("", "KeyboardInterrupt\r\n>>> ")
        await type_("await Model.count(Thing)\n", "1\r\n>>> ")
        os.write(ours, b"\x04")
        assert await asyncio.to_thread(process.wait, 30) == 0
        history = one.folder / "storage" / "shell_history"
        if history.exists():
            assert "await Model.count(Thing)" in history.read_text()
            assert history.stat().st_mode & 0o077 == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
