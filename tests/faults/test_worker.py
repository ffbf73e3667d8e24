"""The worker dies, stops, hangs and is fed poison: nothing that the broker acknowledged is lost."""

from __future__ import annotations

import json
import signal

from tests.faults.conftest import OutlivingBroker, Streaming, a_moment
from tests.support.postgres import fetch, postgres
from tests.support.stream import MODEL, ROUTER, SOAK, Stream, grows
from tests.support.waiting import until
from tests.support.worker import Worker


async def killed(stream: Stream, worker: Worker, times: int) -> Worker:
    """Kill ``worker``, and each that is started after it, ``times`` times in all. Return the last one."""
    for _ in range(times):
        await grows(stream, 20)
        await a_moment()
        worker.kill()
        worker = await stream.project.start().ready()
    return worker


async def test_killed_at_random_moments(streaming: Streaming, broker: OutlivingBroker) -> None:
    times = 20 if SOAK else 4
    stream = streaming(broker.url, DATABASE_URL=postgres().new_database())
    worker = await stream.project.start().ready()
    stream.start()
    worker = await killed(stream, worker, times)
    await grows(stream, 20)
    await streaming.account(stream, worker, "worker killed", times)


async def test_stopped_by_sigterm_without_loss_or_repeat(streaming: Streaming, broker: OutlivingBroker) -> None:
    times = 20 if SOAK else 4
    stream = streaming(broker.url, DATABASE_URL=postgres().new_database())
    worker = await stream.project.start().ready()
    stream.start()
    for _ in range(times):
        await grows(stream, 20)
        await a_moment()
        assert await worker.stop(signal.SIGTERM) == 0
        worker = await stream.project.start().ready()
    await grows(stream, 20)
    await streaming.account(stream, worker, "worker stopped (SIGTERM)", times, repeats=False)


async def test_killed_on_sqlite(streaming: Streaming, broker: OutlivingBroker) -> None:
    times = 20 if SOAK else 3
    stream = streaming(broker.url)
    worker = await stream.project.start().ready()
    stream.start()
    worker = await killed(stream, worker, times)
    await streaming.account(stream, worker, "worker killed, SQLite", times)


TWO_ROWS = (
    ROUTER.replace("import Number", "import Echo, Number")
    + """\
    await asyncio.sleep(0.02)
    await Model.create(Echo, source=context["params"]["source"], number=context["payload"]["number"])
"""
)
ECHO = (
    MODEL
    + """
class Echo(Base):
    __tablename__ = "echoes"
    id: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[str]
    number: Mapped[int]
"""
)


async def test_killed_between_two_writes_of_a_handler_keeps_both_or_neither(
    streaming: Streaming, broker: OutlivingBroker
) -> None:
    times = 20 if SOAK else 4
    url = postgres().new_database()
    stream = streaming(broker.url, router=TWO_ROWS, DATABASE_URL=url)
    (stream.project.folder / "app" / "models" / "number.py").write_text(ECHO)
    worker = await stream.project.start().ready()
    stream.start()
    worker = await killed(stream, worker, times)
    await streaming.account(stream, worker, "worker killed between two writes", times)
    counts = "SELECT source, number, count(*) FROM {} GROUP BY 1, 2 ORDER BY 1, 2"
    assert await fetch(url, counts.format("numbers")) == await fetch(url, counts.format("echoes"))


async def test_a_handler_that_never_returns(streaming: Streaming, broker: OutlivingBroker) -> None:
    router = ROUTER.replace(
        "    await Model.create",
        '    if context["params"]["source"] == "s3" and context["payload"]["number"] in (2, 5):\n'
        "        await asyncio.Event().wait()\n    await Model.create",
    )
    stream = streaming(broker.url, router=router, HANDLER_TIMEOUT=1, RETRY_ATTEMPTS=1)
    worker = await stream.project.start().ready()
    stream.start()
    await until(lambda: stream.project.count("routemq_dead_letters") == 2)
    found = await streaming.account(stream, worker, "handler hangs", 2)
    assert found.dead == 2
    letters = stream.project.rows("SELECT topic, error FROM routemq_dead_letters")
    assert letters == [("n/s3", "HandlerTimeoutError")] * 2


class Poisoned(Stream):
    """Every twentieth message cannot be stored, for three reasons in turn."""

    def body(self, source: str, number: int) -> bytes:
        if number % 20 != 19:
            return super().body(source, number)
        kind = number // 20 % 3
        return b'{"number": %d' % number if kind == 0 else json.dumps({"number": number, "poison": kind}).encode()


POISONED = """
from app.models.number import Number
from core.model import Model
from core.router import Router

router = Router()

@router.on("n/<source>"CODEC)
async def store(context):
    payload = context["payload"]
    if payload.get("poison") == 1:
        raise ValueError("poison")
    if payload.get("poison") == 2:
        # The number of the message before it, which is taken.
        payload["number"] -= 1
    await Model.create(Number, source=context["params"]["source"], number=payload["number"])
"""
UNIQUE = MODEL.replace("    id:", '    __table_args__ = (UniqueConstraint("source", "number"),)\n    id:').replace(
    "from sqlalchemy.orm", "from sqlalchemy import UniqueConstraint\nfrom sqlalchemy.orm"
)
LENIENT = """
import re

class Lenient:
    def decode(self, body):
        return {"number": int(re.search(rb"[0-9]+", body)[0])}

    def encode(self, value):
        return b""
"""


async def test_poison_costs_itself_alone_and_is_stored_after_the_fix(streaming: Streaming, broker: OutlivingBroker) -> None:
    stream = streaming(broker.url, router=POISONED.replace("CODEC", ""), RETRY_ATTEMPTS=2, RETRY_FIRST=0.01, kind=Poisoned)
    folder = stream.project.folder / "app"
    (folder / "models" / "number.py").write_text(UNIQUE)
    worker = await stream.project.start().ready()
    stream.start()
    enough = 200 if SOAK else 62
    await until(lambda: min(stream.sent.values()) >= enough, 120)
    found = await streaming.account(stream, worker, "poison 5 %", 1, repeats=False)
    poisonous = {(s, n) for s, sent in stream.sent.items() for n in range(sent) if n % 20 == 19}
    assert found.dead == len(poisonous)
    rows = set(stream.project.rows("SELECT source, number FROM numbers"))
    assert rows == {(s, n) for s, sent in stream.sent.items() for n in range(sent)} - poisonous
    errors = {row[0] for row in stream.project.rows("SELECT DISTINCT error FROM routemq_dead_letters")}
    assert errors == {"PayloadError", "ValueError", "IntegrityError"}

    (folder / "routers" / "numbers.py").write_text(LENIENT + ROUTER.replace('"n/<source>"', '"n/<source>", codec=Lenient()'))
    code, said = await stream.project.command("dead-letters", "replay", "--all")
    assert (code, said) == (0, f"{len(poisonous):,} replayed and removed, 0 kept after failing again\n")
    assert set(stream.project.rows("SELECT source, number FROM numbers")) == rows | poisonous
    assert stream.project.count("numbers") == found.sent
    assert stream.project.count("routemq_dead_letters") == 0
