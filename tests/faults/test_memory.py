"""More comes in than can be handled: memory stays flat, and the connection holds."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import psutil

from tests.support.mosquitto import Mosquitto
from tests.support.stream import SOAK
from tests.support.waiting import until
from tests.support.worker import Projects

MESSAGES = 1_000_000 if SOAK else 60_000
MAX_MIB = 150

SLOW = """
import asyncio
from core.router import Router

router = Router()

@router.on("n/<source>", qos=0, codec="raw")
async def slow(context):
    await asyncio.sleep(0.005)
"""


def publish(topic: str, body: bytes) -> bytes:
    """Give a PUBLISH packet of QoS 0 of MQTT 3.1.1 (3.3)."""
    rest = len(topic).to_bytes(2, "big") + topic.encode() + body
    length = len(rest)
    assert length < 16_384
    encoded = bytes([length]) if length < 128 else bytes([length % 128 | 128, length // 128])
    return b"\x30" + encoded + rest


async def flood(port: int, messages: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05flood")
    assert await reader.readexactly(4) == b"\x20\x02\x00\x00"
    packets = b"".join(publish(f"n/{number % 100}", b"x" * 200) for number in range(500))
    for _ in range(messages // 500):
        writer.write(packets)
        await writer.drain()
    writer.write(b"\xe0\x00")
    await writer.drain()
    # Mosquitto hangs up when it has read everything.
    await reader.read()
    writer.close()
    await writer.wait_closed()


async def test_a_flood_of_qos_0_against_a_slow_handler(
    project: Projects, mosquitto: Mosquitto, version: str, record_property: Callable[[str, object], None]
) -> None:
    one = project({"slow": SLOW}, {}, MQTT_URL=mosquitto.url, MQTT_VERSION=version.rpartition(" ")[2], MQTT_KEEPALIVE=5)
    one.set(MQTT_TRANSPORT="aiomqtt" if version.startswith("aiomqtt") else "auto")
    worker = await one.start().ready()
    process = psutil.Process(worker.process.pid)
    before = process.memory_info().rss
    highest = before

    flooding = asyncio.create_task(flood(mosquitto.port, MESSAGES))

    def received() -> int:
        found = re.findall(r"([\d,]+) received", worker.output)
        return int(found[-1].replace(",", "")) if found else 0

    while not flooding.done():
        highest = max(highest, process.memory_info().rss)
        await asyncio.sleep(0.1)
    await flooding

    async def idle() -> bool:
        nonlocal highest
        highest = max(highest, process.memory_info().rss)
        return process.cpu_percent(0.5) < 5

    await until(idle, 900)
    assert await worker.stop() == 0
    grown = (highest - before) / 2**20
    fault = {"fault": "QoS 0 flood", "MQTT": version, "times": 1, "sent": MESSAGES, "rows": received(), "dead": 0}
    record_property("fault", fault | {"lost": "-", "repeated": 0, "disordered": 0})
    record_property("grown", f"{grown:.0f} MiB")
    assert grown < MAX_MIB, f"{grown:.0f} MiB"
    assert "lost" not in worker.output
    assert received() > MESSAGES / 100
