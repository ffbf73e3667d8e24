"""CPU per message through router and controller on the memory transport, with 10 and with 10,000 routes.

    python -m benchmarks.dispatch [--messages 20000] [--rounds 5]

The two are measured in turns, in one process, so that a busy machine slows both. The medians are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from time import process_time
from typing import Any

from core.context import Context
from core.controller import Controller
from core.delivery.engine import Engine, EngineOptions
from core.mqtt.publication import Publication
from core.publisher import Publisher
from core.records.dead_letters import DeadLetter
from core.router import Router
from core.session.session import Session
from core.transport.brokers.memory import MemoryBroker

BODY = b'{"type": "temperature", "value": 21.5, "unit": "celsius", "timestamp": 1767225600}'
TOPICS = 100
MAX_IN_HAND = 500


class Readings(Controller):
    """A controller that does nothing, so that the framework alone is measured."""

    async def store(self, context: Context[Any]) -> None:
        """Do nothing."""


class NoDeadLetters:
    """Fails the benchmark if a message fails."""

    async def add(self, dead_letter: DeadLetter, also: Any = None) -> None:
        raise AssertionError(dead_letter.reason)


def routes(number: int) -> Router:
    """Return a router of ``number`` routes. The one that is measured stands in their middle."""
    router = Router()
    for kind in range(number):
        router.on(f"site-{kind % 100}/kind-{kind}/<device_id>/data", Readings.store)
    router.freeze()
    return router


async def measure(router: Router, kind: int, messages: int) -> float:
    """Return the seconds of CPU that ``messages`` messages cost, from PUBLISH to PUBACK."""
    broker = MemoryBroker()
    session = Session(broker.connector("worker"), "memory", router.subscriptions())
    nothing = NoDeadLetters()
    engine = Engine(
        EngineOptions(
            router=router,
            link=session,
            outgoing=Publisher(broker.connector("publisher"), "memory"),
            dead_letters=nothing,
            last_resort=nothing,
            client_id="worker",
            broker="memory",
        )
    )
    session.start(engine.consumer)
    await session.connected()
    topics = [f"site-{kind % 100}/kind-{kind}/device-{device}/data" for device in range(TOPICS)]
    # The broker's part is not measured: its one session has one subscription, so that messages come straight through.
    (own,) = broker._sessions.values()
    own.subscriptions = {f"site-{kind % 100}/kind-{kind}/+/data": 1}
    began = process_time()
    for start in range(0, messages, MAX_IN_HAND):
        for number in range(start, min(start + MAX_IN_HAND, messages)):
            broker.publish(Publication(topics[number % TOPICS], BODY, qos=1))
        while engine.ledger.in_hand:
            await asyncio.sleep(0)
    spent = process_time() - began
    assert engine.ledger.done == messages
    await session.stop()
    return spent


def main() -> None:
    """Print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    few, many = routes(10), routes(10_000)
    cost: dict[int, list[float]] = {10: [], 10_000: []}
    for number in range(given.rounds + 1):
        for router, count in ((few, 10), (many, 10_000)):
            spent = asyncio.run(measure(router, count // 2, given.messages)) / given.messages * 1e6
            # The first round warms up.
            if number:
                cost[count].append(spent)
    medians = {count: statistics.median(values) for count, values in cost.items()}
    print("dispatch: PUBLISH -> route -> JSON -> controller -> PUBACK, memory transport, CPU us per message")
    for count, median in medians.items():
        low, high = min(cost[count]), max(cost[count])
        print(f"  {count:>6,} routes   median {median:6.2f}   min {low:6.2f}   max {high:6.2f}")
    print(f"  ratio {medians[10_000] / medians[10]:.2f}")


if __name__ == "__main__":
    main()
