"""CPU per message of each transport. QoS 1 messages from a real Mosquitto are received and acknowledged, nothing else.

    python -m benchmarks.receive [--messages 20000] [--rounds 3]

The transports take turns in one process. Another process publishes, and is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING

from core.transport.connect import connector
from core.transport.connection import Subscription
from core.transport.options import parse_url
from tests.support.mosquitto import Mosquitto

if TYPE_CHECKING:
    from core.mqtt.message import Message
    from core.transport.connection import Connack, Connection

BODY = b'{"type": "temperature", "value": 21.5, "unit": "celsius", "timestamp": 1767225600}'
KINDS = (("native", "5"), ("aiomqtt", "5"), ("aiomqtt", "3.1.1"))
PUBLISH = """
import asyncio, sys
from dataclasses import replace
from core.mqtt.publication import Publication
from core.publisher import Publisher
from core.transport.connect import connector
from core.transport.options import parse_url

async def main(url, messages, body):
    publisher = Publisher(connector(replace(parse_url(url), client_id="publisher", clean_start=True)), "bench")
    for start in range(0, messages, 400):
        numbers = range(start, min(start + 400, messages))
        await asyncio.gather(*(publisher.send(Publication(f"d/{n % 100}/data", body, qos=1)) for n in numbers))
    await publisher.stop()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()))
"""


class Counter:
    """Acknowledges together all messages of one turn of the event loop, as the worker does.

    ``done`` is set after ``wanted`` messages.
    """

    def __init__(self, wanted: int) -> None:
        self.connection: Connection | None = None
        self.done = asyncio.Event()
        self._left = wanted
        self._waiting: list[int] = []

    def receive(self, message: Message) -> None:
        """Count one message, and have it acknowledged."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._acknowledge)
        self._waiting.append(message.packet_id)
        self._left -= 1
        if not self._left:
            self.done.set()

    def _acknowledge(self) -> None:
        assert self.connection is not None
        self.connection.acknowledge(self._waiting)
        self._waiting = []

    def connected(self, connack: Connack) -> None:
        """Do nothing."""

    def disconnected(self) -> None:
        """Do nothing."""


async def measure(url: str, transport: str, version: str, messages: int) -> float:
    """Return the seconds of CPU that ``messages`` messages cost.

    - ``url``: the broker.
    - ``transport``: "native" or "aiomqtt".
    - ``version``: "5" or "3.1.1".
    - ``messages``: how many messages are received.
    """
    options = replace(
        parse_url(url), transport=transport, version=version, client_id=f"{transport}-{version}", clean_start=True
    )
    counter = Counter(messages)
    connection = counter.connection = connector(options)(counter, 1)
    await connection.open()
    await connection.subscribe([Subscription("d/+/data", 1)])
    arguments = [sys.executable, "-c", PUBLISH, url, str(messages), BODY.decode()]
    publishing = await asyncio.create_subprocess_exec(*arguments)
    began = process_time()
    await counter.done.wait()
    spent = process_time() - began
    await publishing.wait()
    await connection.close()
    return spent


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    cost: dict[tuple[str, str], list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        broker = Mosquitto(Path(folder), "max_inflight_messages 1000").start()
        try:
            for _ in range(given.rounds):
                for kind in KINDS:
                    spent = run(measure(broker.url, *kind, given.messages))
                    cost[kind].append(spent / given.messages * 1e6)
        finally:
            broker.stop()
    print("receive and acknowledge, QoS 1, Mosquitto, uvloop where it is installed: CPU us per message")
    for (transport, version), values in cost.items():
        median = statistics.median(values)
        print(f"  {transport:8} MQTT {version:6} median {median:6.1f}   min {min(values):6.1f}   max {max(values):6.1f}")


def run(main: object) -> float:
    """Run ``main`` on the event loop that the worker uses."""
    try:
        import uvloop  # noqa: PLC0415 - not on all platforms
    except ImportError:
        return asyncio.run(main)  # type: ignore[arg-type]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
