"""A handler with a bug is deployed, and mended by the next start: its messages wait, and nobody else's do."""

from __future__ import annotations

import pytest

from tests.support.waiting import until
from tests.support.worker import Projects, Publishers

MODEL = """
from sqlalchemy.orm import Mapped, mapped_column
from core.model import Base

class Number(Base):
    __tablename__ = "numbers"
    id: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[str]
    value: Mapped[int]
"""
ROUTER = """
from app.models.number import Number
from core.model import Model
from core.router import Router

router = Router()

@router.on("good/<source>")
async def good(context):
    await Model.create(Number, source=context["params"]["source"], value=context["payload"])

@router.on("late/<source>", delivery="exactly_once")
async def late(context):
    BUG
    await Model.create(Number, source=context["params"]["source"], value=context["payload"])
"""


@pytest.mark.case(9)
async def test_what_a_bug_would_have_cost_waits_for_the_next_start(project: Projects, publisher: Publishers) -> None:
    one = project({"r": ROUTER.replace("BUG", 'raise KeyError("a bug")')}, {"number": MODEL}, BREAKER_AFTER=5)
    worker = await one.start().ready()
    out = await publisher(one)
    for number in range(20):
        await out.publish(f"late/{number % 3}", b"%d" % number, qos=1)
        await out.publish("good/x", b"%d" % number, qos=1)
    await until(lambda: one.count("numbers") == 20)
    await until(lambda: one.count("routemq_backlog") == 15)
    assert one.count("routemq_dead_letters") == 5
    code, said = await one.command("doctor")
    assert code == 0
    assert "route late/<source> stands, because its last 5 messages have failed with KeyError: 'a bug'" in said
    assert "(15 messages wait since" in said
    assert await worker.stop() == 0
    assert "5 dead-lettered, 15 waiting, 0 in hand" in worker.output
    (one.folder / "app" / "routers" / "r.py").write_text(ROUTER.replace("BUG", ""))
    worker = await one.start().ready()
    await worker.says("the 15 messages that waited are handled")
    rows = one.rows("SELECT source, value FROM numbers WHERE source != 'x' ORDER BY id")
    dead = [int(body) for (body,) in one.rows("SELECT body FROM routemq_dead_letters")]
    assert sorted(dead + [value for _, value in rows]) == list(range(20))
    for source in "012":
        own = [value for name, value in rows if name == source]
        assert own == sorted(own)
    assert await worker.stop() == 0
