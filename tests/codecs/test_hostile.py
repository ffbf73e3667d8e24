"""Hostile bodies through the real consumer: each is a dead letter with a reason, and none costs a neighbour."""

from __future__ import annotations

import asyncio
import logging
import time
import tracemalloc
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from core.codecs import CodecLike, protobuf
from core.context import Context
from core.records.dead_letters import DeadLetter
from core.router import Router
from tests.support.hostile_bodies import WHOLE, corpus
from tests.support.memory_worker import running
from tests.support.protobuf_messages import Reading
from tests.support.waiting import until


class Measured(BaseModel):
    name: str
    value: float
    at: datetime


def plant(seen: list[str]) -> Router:
    """Give a router with a route for each codec; ``seen`` gets the topics that handlers were called for."""
    router = Router()

    async def handle(context: Context[Any]) -> None:
        assert isinstance(context["payload"], float if context["topic"].startswith("text") else Measured)
        seen.append(context["topic"])

    codecs: dict[str, CodecLike] = {
        "json": "json",
        "cbor": "cbor",
        "msgpack": "msgpack",
        "protobuf": protobuf(Reading),
        "gzip": "json+gzip",
        "zstd": "cbor+zstd",
        "auto": "auto",
    }
    for name, codec in codecs.items():
        router.on(f"{name}/<device>", handle, codec=codec, schema=Measured)
    router.on("text/<device>", handle, codec="text", schema=float)
    return router


def check(letter: DeadLetter) -> None:
    """Assert that the reason says something to a person, in one line or a line for each field."""
    assert letter.error in {"PayloadError", "SchemaError"}, letter
    assert letter.attempts == 1
    said = letter.reason.removeprefix(f"{letter.error}: ")
    assert said != letter.reason
    assert len(letter.reason) <= 8_000
    for line in said.split("\n"):
        assert 10 < len(line) <= 500, line
        assert line.isprintable(), line
        # A sentence in words, and not what some library calls its exception.
        assert len(line.split()) >= 3, line
        assert "Error" not in line, line
        assert "0x7f" not in line, line


async def test_each_of_the_corpus_is_a_dead_letter_and_each_neighbour_is_handled(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    hostile = corpus()
    assert len(hostile) >= 200
    seen: list[str] = []
    began = time.process_time()
    async with running(plant(seen)) as worker:
        for number, (route, body, properties) in enumerate(hostile):
            await worker.send(f"{route}/beside-{number}", WHOLE[route])
            await worker.send(f"{route}/{number}", body, properties=properties or None)
            # Behind it, with its ordering key.
            await worker.send(f"{route}/{number}", WHOLE[route])
            if number % 50 == 49:
                await until(lambda: worker.ledger.in_hand == 0)
        await worker.settled()
        letters = worker.dead_letters.letters
        assert (worker.ledger.done, worker.ledger.dead_lettered) == (2 * len(hostile), len(hostile))
    assert time.process_time() - began < 30
    assert sorted(seen) == sorted(f"{r}/{which}" for n, (r, _, _) in enumerate(hostile) for which in (n, f"beside-{n}"))
    by_topic = {letter.topic: letter for letter in letters}
    for number, (route, body, _) in enumerate(hostile):
        letter = by_topic[f"{route}/{number}"]
        assert letter.body == body
        check(letter)
    assert worker.last_resort.letters == []
    assert all("\n" not in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("route", ["json", "gzip", "cbor", "msgpack", "zstd", "auto"])
async def test_bombs_take_no_memory(route: str) -> None:
    bombs = [(r, body, properties) for r, body, properties in corpus() if r == route]
    seen: list[str] = []
    async with running(plant(seen)) as worker:
        # One first, so that the libraries are loaded.
        await worker.send(f"{route}/good", WHOLE[route])
        await worker.settled()
        tracemalloc.start()
        try:
            for r, body, properties in bombs:
                await worker.send(f"{r}/x", body, properties=properties or None)
            await worker.settled()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert worker.ledger.dead_lettered == len(bombs)
        # The largest body that is taken, and what is made of it.
        assert peak < 40_000_000


def bent(whole: bytes) -> st.SearchStrategy[bytes]:
    """Give strategies for what becomes of ``whole`` on a bad line, and for what never was one."""
    places = st.integers(0, len(whole) - 1)
    return (
        st.binary(max_size=100)
        | places.map(lambda at: whole[:at])
        | st.tuples(places, st.integers(0, 255)).map(lambda p: whole[: p[0]] + bytes([p[1]]) + whole[p[0] + 1 :])
        | st.tuples(places, st.binary(min_size=1, max_size=9)).map(lambda p: whole[: p[0]] + p[1] + whole[p[0] :])
        | st.tuples(places, places).map(lambda p: whole[p[0] :] + whole[: p[1]])
    )


BODIES = st.sampled_from(sorted(WHOLE)).flatmap(lambda route: st.tuples(st.just(route), bent(WHOLE[route])))


@settings(max_examples=40, deadline=None)
@given(st.lists(BODIES, min_size=10, max_size=30))
def test_whatever_comes_is_handled_or_a_dead_letter(bodies: list[tuple[str, bytes]]) -> None:
    async def send_all() -> None:
        seen: list[str] = []
        async with running(plant(seen)) as worker:
            for number, (route, body) in enumerate(bodies):
                await worker.send(f"{route}/{number}", body)
                await worker.send(f"{route}/good-{number}", WHOLE[route])
            await worker.settled()
            assert worker.ledger.done + worker.ledger.dead_lettered == 2 * len(bodies)
        assert len([topic for topic in seen if "good" in topic]) == len(bodies)
        for letter in worker.dead_letters.letters:
            check(letter)

    logging.disable(logging.CRITICAL)
    try:
        asyncio.run(send_all())
    finally:
        logging.disable(logging.NOTSET)
