"""Filters that come and go: in the end the broker has those that are wanted, whatever happened meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from core.errors import BrokerRefusedError
from core.session import session as module
from core.session.filters import Filters
from core.session.session import Session
from core.transport.brokers.memory import MemoryBroker, MemoryConnection
from core.transport.connection import Connack, Connect, Deaf, Subscription
from tests.support.waiting import soon, until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.002)
    monkeypatch.setattr(module, "MAX_PAUSE", 0.01)


class Telling(Deaf):
    filters: Filters

    def connected(self, connack: Connack) -> None:
        self.filters.connected()


def opened(connect: Connect) -> tuple[Session, Filters]:
    session, listener = Session(connect, "broker"), Telling()
    listener.filters = Filters(session)
    session.start(listener)
    return session, listener.filters


@pytest.mark.parametrize("seed", range(5))
async def test_what_is_wanted_is_what_the_broker_has(seed: int) -> None:
    chance = random.Random(seed)
    memory = MemoryBroker()
    session, filters = opened(memory.connector("c", clean_start=True))
    names = [f"t/{n}" for n in range(8)]
    users = dict.fromkeys(names, 0)

    async def use(name: str, seconds: float) -> None:
        users[name] += 1
        try:
            async with asyncio.timeout(seconds):
                await filters.add(Subscription(name, 1, retained=False))
                assert name in memory.filters("c") or not session.stands
                await asyncio.sleep(seconds)
        except TimeoutError:
            pass
        finally:
            users[name] -= 1
            if not users[name]:
                filters.remove(name)

    using = []
    for _ in range(200):
        using.append(asyncio.create_task(use(chance.choice(names), chance.random() * 0.02)))
        await asyncio.sleep(chance.random() * 0.004)
        if chance.random() < 0.05:
            memory.drop_connections()
    await asyncio.gather(*using)
    await soon(filters.add(Subscription("last", 1)))
    await until(lambda: memory.filters("c") == {"last"})
    filters.remove("last")
    await until(lambda: not memory.filters("c"))
    assert filters.settled
    await filters.stop()
    await session.stop()


class Strict(MemoryConnection):
    """Mosquitto's access lists refuse no subscription, so that a broker which does has to be made up."""

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        await super().subscribe([one for one in subscriptions if not one.topic_filter.startswith("closed/")])
        if any(one.topic_filter.startswith("closed/") for one in subscriptions):
            raise BrokerRefusedError("the broker refused subscriptions", 0x87)


async def test_of_filters_that_go_out_together_only_the_refused_one_fails() -> None:
    memory = MemoryBroker()
    session, filters = opened(lambda listener, number: Strict(memory, "c", 10, listener, number))
    wanted = ["open/a", "closed/b", "open/c"]
    given = await asyncio.gather(*(filters.add(Subscription(name, 1)) for name in wanted), return_exceptions=True)
    assert [type(one) for one in given] == [type(None), BrokerRefusedError, type(None)]
    with pytest.raises(BrokerRefusedError):
        await filters.add(Subscription("closed/b", 1))
    assert memory.filters("c") == {"open/a", "open/c"}
    assert filters.settled
    await filters.stop()
    await session.stop()
