"""CPU per message of reading a payload: a bare dict beside a pydantic model of five fields.

    python -m benchmarks.schema [--messages 50000] [--rounds 9]

The two are measured in turns, in one process, so that a busy machine slows both. What is measured is making the context of
a run (core/handling/runner.py). Everything else in it is the same for both.
"""

from __future__ import annotations

import argparse
import statistics
from time import process_time
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from core.codecs import Limits
from core.context import Context
from core.handling.delivery import Delivery
from core.handling.runner import context_of
from core.mqtt.message import Message
from core.publisher import Publisher
from core.router import Router
from core.transport.brokers.memory import MemoryBroker

if TYPE_CHECKING:
    from core.routing.registered import Route

BODY = b'{"type": "temperature", "value": 21.5, "unit": "celsius", "timestamp": 1767225600, "battery": 87}'
TOPIC = "devices/17/data"


class Reading(BaseModel):
    """One reading."""

    type: str
    value: float
    unit: str
    timestamp: int
    battery: int


async def store(context: Context[dict[str, Any]]) -> float:
    """Return the value of a reading that is a dict."""
    value: float = context["payload"]["value"]
    return value


async def store_checked(context: Context[Reading]) -> float:
    """Return the value of a reading that is an object."""
    return context["payload"].value


def route(schema: Any) -> Route:
    """Return a route with ``schema``. Return one without a schema where it is None."""
    router = Router()
    router.on("devices/<device_id>/data", store if schema is None else store_checked, schema=schema)
    return router.routes[0]


def measure(measured: Route, messages: int) -> float:
    """Return the microseconds of CPU that the context of one message costs."""
    message, params, limits = Message(TOPIC, BODY, 1), {"device_id": "17"}, Limits()
    publish = Publisher(MemoryBroker().connector("publisher"), "memory").publish
    began = process_time()
    for _ in range(messages):
        delivery = Delivery(message, measured, params)
        context_of(delivery, measured.info, measured.read(message, limits), publish)
    return (process_time() - began) / messages * 1e6


def main() -> None:
    """Print the medians and their difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    routes = {"a bare dict": route(None), "a model of five fields": route(Reading)}
    cost: dict[str, list[float]] = {name: [] for name in routes}
    for number in range(given.rounds + 1):
        for name, measured in routes.items():
            spent = measure(measured, given.messages)
            # The first round warms up.
            if number:
                cost[name].append(spent)
    medians = {name: statistics.median(values) for name, values in cost.items()}
    print(f"schema: the context of a message, JSON of {len(BODY)} bytes, CPU us per message")
    for name, median in medians.items():
        print(f"  {name:24} median {median:6.2f}   min {min(cost[name]):6.2f}   max {max(cost[name]):6.2f}")
    bare, checked = medians.values()
    print(f"  the schema costs {checked - bare:.2f} us more. At most 8 us are allowed")


if __name__ == "__main__":
    main()
