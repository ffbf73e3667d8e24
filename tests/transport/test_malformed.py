"""A PUBLISH that breaks a rule of MQTT costs that message alone, and can be acknowledged, on every transport."""

from __future__ import annotations

import asyncio
import struct
import tracemalloc
from dataclasses import dataclass, field

import mqtt5
import pytest

from core.errors import MalformedError, PacketTooLargeError
from core.transport.connect import connector
from core.transport.connection import Connection
from core.transport.options import largest_packet
from core.transport.salvage import MAX_BODY
from tests.support.hostile_broker import publish, text, variable
from tests.support.recorder import Recorder
from tests.support.tcp_server import serving
from tests.support.waiting import until
from tests.transport.conftest import options

# Of text that is no UTF-8 the codec says so twice, once to nobody.
pytestmark = [pytest.mark.case(11), pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

VERSIONS = ["native 5", "aiomqtt 5", "aiomqtt 3.1.1"]


@dataclass
class Broker:
    """Answers CONNECT, sends ``sends``, and keeps what it gets."""

    version: str
    sends: list[bytes]
    got: bytearray = field(default_factory=bytearray)
    connect: bytes = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connect = await reader.read(1000)
        writer.write(b"\x20\x02\x00\x00" if self.version.endswith("3.1.1") else mqtt5.ConnAckPacket().write())
        for data in self.sends:
            writer.write(data)
            await writer.drain()
        while (data := await reader.read(1000)) and data != b"\xe0\x00":
            self.got += data

    async def connected(self, port: int, **how: int) -> tuple[Connection, Recorder]:
        heard = Recorder()
        made = connector(options(f"mqtt://127.0.0.1:{port}", self.version, connect_timeout=60, **how))(heard, 1)
        await made.open()
        return made, heard


UTF_8 = "not well-formed UTF-8"
BAD = {
    "topic": (b"a/\xff\xfe", b"", None, "the topic is " + UTF_8, "a/\\xff\\xfe"),
    "surrogate": (b"a/\xed\xa0\x80", b"", None, "the topic is " + UTF_8, "a/\\xed\\xa0\\x80"),
    "content type": (b"t", b"\x03" + text(b"\xff"), None, "the content type is " + UTF_8, "t"),
    "response topic": (b"t", b"\x08" + text(b"\xff"), None, "the response topic is " + UTF_8, "t"),
    "user property": (b"t", b"\x26" + text(b"name") + text(b"\xff"), None, "the user property is " + UTF_8, "t"),
    "twice": (b"t", (b"\x03" + text(b"a")) * 2, None, "the content type stands twice", "t"),
    "of CONNECT": (b"t", b"\x11\0\0\0\1", None, "0x11 does not belong to PUBLISH", "t"),
    "unknown": (b"t", b"\x7f\1", None, "0x7f does not belong to PUBLISH", "t"),
    "alias": (b"", b"\x23\0\3", None, "the topic alias 3, although CONNECT allowed none", ""),
    "alias beside a topic": (b"t", b"\x23\0\3", None, "the topic alias 3, although CONNECT allowed none", "t"),
    "empty": (b"", b"", None, "the topic is empty", ""),
    "longer than the packet": (b"t", b"", 99, "the properties are longer than the packet", "t"),
    "a property too long": (b"t", b"\x03\0\x09a", None, "a property is longer than all properties together", "t"),
}
CASES = [
    pytest.param(version, *what, id=f"{version} {name}")
    for version in VERSIONS
    for name, what in BAD.items()
    if not version.endswith("3.1.1") or (not what[1] and what[2] is None)
]


@pytest.mark.parametrize(("version", "topic", "properties", "told", "why", "shown"), CASES)
async def test_what_is_wrong_costs_that_message_alone(
    version: str, topic: bytes, properties: bytes, told: int | None, why: str, shown: str
) -> None:
    bad = publish(version, topic, b"bad", 7, properties, told)
    broker = Broker(version, [publish(version, b"t", b"before", 6) + bad + publish(version, b"t", b"after", 8)])
    async with serving(broker) as port:
        connection, heard = await broker.connected(port)
        await until(lambda: len(heard.messages) == 3)
        before, message, after = heard.messages
        assert (before.body, after.body) == (b"before", b"after")
        assert before.fault is after.fault is None
        assert (message.topic, message.qos, message.packet_id) == (shown, 1, 7)
        assert message.body.endswith(b"bad")
        assert isinstance(message.fault, MalformedError)
        assert why in str(message.fault) or ("3.1.1" in version and "empty" in why)
        connection.acknowledge([6, 7, 8])
        await until(lambda: bytes(broker.got) == b"".join(b"\x40\x02" + struct.pack("!H", number) for number in (6, 7, 8)))
        assert heard.losses == 0
        await connection.close()


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_can_be_read_of_the_properties_is_kept(version: str) -> None:
    if version.endswith("3.1.1"):
        pytest.skip("MQTT 3.1.1 has no properties")
    properties = b"\x08" + text(b"answers") + b"\x26" + text(b"unit") + text(b"\xb0C") + b"\x09" + text(b"\x00\x01")
    broker = Broker(version, [publish(version, b"t", b"x", 7, properties)])
    async with serving(broker) as port:
        connection, heard = await broker.connected(port)
        await until(lambda: heard.messages)
        expected = {"response_topic": "answers", "user_property": [("unit", "\\xb0C")], "correlation_data": b"\x00\x01"}
        assert heard.messages[0].properties == expected
        await connection.close()


@pytest.mark.parametrize("version", VERSIONS)
async def test_framing_that_is_wrong_ends_the_connection(version: str) -> None:
    broker = Broker(version, [publish(version, b"t", b"before", 6) + b"\x32\xff\xff\xff\xff\x01" + b"\0" * 100])
    async with serving(broker) as port:
        connection, heard = await broker.connected(port)
        await connection.closed()
        assert heard.bodies == [b"before"]
        assert heard.losses == 1
        await connection.close()


HUGE = 200 * 2**20
MOST = largest_packet(100_000)


@pytest.mark.parametrize("packet_id", [7, 0])
@pytest.mark.parametrize("version", VERSIONS)
async def test_a_huge_packet_is_passed_over_and_not_kept(version: str, packet_id: int) -> None:
    head = publish(version, b"huge", b"", packet_id)
    rest = head[2:]
    head = head[:1] + variable(len(rest) + HUGE) + rest
    part = bytes(range(256)) * 4096
    sends = [publish(version, b"t", b"before", 6), head, *[part] * (HUGE // len(part)), publish(version, b"t", b"after", 8)]
    broker = Broker(version, sends)
    async with serving(broker) as port:
        tracemalloc.start()
        try:
            connection, heard = await broker.connected(port, maximum_packet_size=MOST)
            await until(lambda: len(heard.messages) == 3, 60)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        _, message, after = heard.messages
        assert after.body == b"after"
        assert isinstance(message.fault, PacketTooLargeError)
        assert f"{len(rest) + HUGE:,}"[:9] in str(message.fault)
        assert (message.topic, message.body) == ("huge", part[:MAX_BODY])
        assert (message.qos, message.packet_id) == ((1, 7) if packet_id else (0, 0))
        assert peak < 8 * 2**20, f"{peak / 2**20:.0f} MiB"
        assert heard.losses == 0
        await connection.close()


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_body_that_is_merely_too_large_is_read_whole(version: str) -> None:
    body = b"x" * (MOST - 100)
    broker = Broker(version, [publish(version, b"t", body, 6)])
    async with serving(broker) as port:
        connection, heard = await broker.connected(port, maximum_packet_size=MOST)
        await until(lambda: heard.bodies == [body])
        assert heard.messages[0].fault is None
        await connection.close()


@pytest.mark.parametrize("version", ["native 5", "aiomqtt 5"])
async def test_connect_names_the_largest_packet(version: str) -> None:
    broker = Broker(version, [])
    async with serving(broker) as port:
        connection, _ = await broker.connected(port, maximum_packet_size=MOST)
        assert b"\x27" + struct.pack("!I", MOST) in broker.connect
        await connection.close()
