"""A stream of numbered messages through a worker, and the count of what became of them."""

from __future__ import annotations

import asyncio
import json
import os
import re
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any

from core.mqtt.publication import Publication
from core.publisher import Publisher
from core.transport.connect import connector
from core.transport.options import parse_url
from tests.support.postgres import fetch
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.support.worker import Project, Worker

SOAK = bool(os.environ.get("ROUTEMQ_SOAK"))
"""Whether the long form of the tests runs: make soak."""
SOURCES = 20
_names = count(1)

ROUTER = """
import asyncio
from app.models.number import Number
from core.model import Model
from core.router import Router

router = Router()

@router.on("n/<source>")
async def store(context):
    await Model.create(Number, source=context["params"]["source"], number=context["payload"]["number"])
"""
MODEL = """
from sqlalchemy.orm import Mapped, mapped_column
from core.model import Base

class Number(Base):
    __tablename__ = "numbers"
    id: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[str]
    number: Mapped[int]
"""


@dataclass
class Account:
    """What was sent, and what became of it."""

    sent: int
    rows: int
    dead: int
    lost: int
    repeated: int
    disordered: int


@dataclass
class Stream:
    """Publishes numbers 0, 1, 2, ... on each of twenty topics, one behind the other on each, until it is stopped.

    A number counts as sent when the broker has acknowledged it.
    """

    broker_url: str
    project: Project
    rate: float = 400
    version: str = "5"
    sent: dict[str, int] = field(default_factory=dict)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _publisher: Publisher | None = None
    _stopping: bool = False
    _paused: bool = False

    def start(self) -> Stream:
        url = parse_url(self.broker_url)
        if url.scheme == "embedded":
            # It speaks MQTT 5 on the next port.
            url = replace(url, scheme="mqtt", port=url.port + (self.version == "5"))
        options = replace(
            url,
            client_id=f"stream-{next(_names)}",
            clean_start=True,
            version=self.version,
            keepalive=5,
        )
        self._publisher = Publisher(connector(options), "the stream's")
        self.sent = {f"s{number}": 0 for number in range(SOURCES)}
        self._tasks = [asyncio.create_task(self._publish(source)) for source in self.sent]
        return self

    def body(self, source: str, number: int) -> bytes:
        return json.dumps({"number": number}).encode()

    async def _publish(self, source: str) -> None:
        assert self._publisher is not None
        while not self._stopping:
            if self._paused:
                await asyncio.sleep(0.01)
                continue
            number = self.sent[source]
            await self._publisher.send(Publication(f"n/{source}", self.body(source, number), qos=1))
            self.sent[source] = number + 1
            await asyncio.sleep(SOURCES / self.rate)

    async def pause(self) -> None:
        self._paused = True
        total = -1
        while total != sum(self.sent.values()):
            total = sum(self.sent.values())
            await asyncio.sleep(0.1)

    def resume(self) -> None:
        self._paused = False

    async def stop(self) -> int:
        """Publish no more; give how many were sent."""
        self._stopping = True
        await asyncio.wait(self._tasks, timeout=30)
        assert all(task.done() for task in self._tasks)
        assert self._publisher is not None
        await self._publisher.stop()
        return sum(self.sent.values())

    async def close(self) -> None:
        """Cut off what still publishes, and disconnect."""
        for task in self._tasks:
            task.cancel()
        if self._publisher is not None:
            await self._publisher.stop()

    # -- what became of them -------------------------------------------------------------------------------------------

    async def _ask(self, sql: str) -> list[tuple[Any, ...]]:
        url = self.project.environment.get("DATABASE_URL", "")
        return await fetch(url, sql) if url.startswith("postgresql") else self.project.rows(sql)

    async def stored(self) -> int:
        """Return the number of rows."""
        return int((await self._ask("SELECT count(*) FROM numbers"))[0][0])

    async def account(self) -> Account:
        rows = await self._ask("SELECT source, number FROM numbers ORDER BY id")
        dead = await self._ask("SELECT topic, body FROM routemq_dead_letters")
        buried = {(topic.removeprefix("n/"), _number(body)) for topic, body in dead}
        expected = {(source, number) for source, sent in self.sent.items() for number in range(sent)}
        missing = expected - set(rows) - buried
        last: dict[str, int] = {}
        seen: set[tuple[str, int]] = set()
        disordered = 0
        for source, number in rows:
            if (source, number) in seen:
                continue
            seen.add((source, number))
            disordered += number < last.get(source, -1)
            last[source] = number
        return Account(len(expected), len(rows), len(dead), len(missing), len(rows) - len(set(rows)), disordered)

    async def settled(self, seconds: float = 90) -> Account:
        """Wait until all that was sent has arrived, and give the account; what is missing then is lost."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            account = await self.account()
            if not account.lost or asyncio.get_running_loop().time() > deadline:
                return account
            await asyncio.sleep(0.2)


def _number(body: bytes) -> int | str:
    found = re.search(rb"\d+", bytes(body))
    return int(found[0]) if found else ""


def ledger(worker: Worker) -> dict[str, int]:
    """Give the counters of the last line of ``worker``, which must come out even."""
    line = next((line for line in reversed(worker.output.splitlines()) if " stopped: " in line), None)
    if line is None:
        return {}
    counters = {name: int(number.replace(",", "")) for number, name in re.findall(r"([\d,]+) ([a-z-]+(?: hand)?)", line)}
    received = counters.pop("received")
    assert received == sum(counters.values()), line
    assert counters["in hand"] == 0, line
    return counters | {"received": received}


async def grows(stream: Stream, by: int, seconds: float = 60) -> None:
    """Wait until ``by`` more rows are there than now."""
    before = await stream.stored()

    async def grown() -> bool:
        return await stream.stored() >= before + by

    await until(grown, seconds)
