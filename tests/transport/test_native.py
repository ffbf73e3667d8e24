"""The native transport: what is malformed ends the connection with the right reason code, and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Self

import mqtt5
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import BrokerUnreachableError, ConnectionLostError, SettingsError
from core.mqtt.publication import Publication
from core.transport.connect import connector
from core.transport.connection import Connection, Subscription
from core.transport.native.wire import BUFFER, Wire
from tests.support.mosquitto import Mosquitto
from tests.support.recorder import Recorder
from tests.support.tcp_server import TcpServer
from tests.support.waiting import soon, until
from tests.transport.conftest import options

CONNACK = mqtt5.ConnAckPacket().write()


class Server:
    """A broker that answers CONNECT, sends ``sends``, and remembers what it gets."""

    def __init__(self, *sends: bytes, connack: bytes = CONNACK) -> None:
        self.sends = (connack, *sends)
        self.got = b""

    async def __aenter__(self) -> Self:
        self._server = await TcpServer(self._serve).start()
        self.port = self._server.port
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        for data in self.sends:
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0.01)
        while data := await reader.read(1000):
            self.got += data
        writer.close()

    async def connection(self) -> tuple[Connection, Recorder]:
        heard = Recorder()
        made = connector(options(f"mqtt://127.0.0.1:{self.port}", transport="native", connect_timeout=60))(heard, 1)
        await made.open()
        return made, heard


def publish(topic: str, body: bytes, packet_id: int = 1, **more: Any) -> bytes:
    return mqtt5.PublishPacket(topic, body, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=packet_id, **more).write()


# Of a topic that is no UTF-8 the codec says so twice, once to nobody.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b"\x00\x00", 0x81),
        (b"\xff\xff\xff\xff\xff\xff", 0x81),
        (b"\x32\x03\x00\x10a", 0x81),
        # QoS 3, no packet identifier, and a packet identifier of 0 behind a topic that is no text.
        (b"\x36\x07\x00\x01t\x00\x07\x00x", 0x81),
        (b"\x32\x03\x00\x01t", 0x81),
        (b"\x32\x08\x00\x02\xff\xfe\x00\x00\x00x", 0x81),
    ],
)
async def test_a_malformed_packet_ends_the_connection_with_its_reason_code(bad: bytes, code: int) -> None:
    async with Server(publish("t", b"before"), bad, publish("t", b"after")) as server:
        connection, heard = await server.connection()
        closure = await soon(connection.closed())
        assert heard.bodies == [b"before"]
        assert heard.losses == 1
        await until(lambda: server.got.endswith(bytes([0xE0, 1, code])) or server.got.endswith(bytes([0xE0, 2, code, 0])))
        assert closure.reason
        await connection.close()


async def test_messages_right_behind_connack_come_after_the_connection_was_told_of() -> None:
    async with Server(connack=CONNACK + publish("t", b"early")) as server:
        connection, heard = await server.connection()
        assert len(heard.connacks) == 1
        await until(lambda: heard.bodies == [b"early"])
        await connection.close()


@settings(max_examples=50, deadline=None)
@given(bodies=st.lists(st.binary(max_size=400), max_size=20), cuts=st.lists(st.integers(1, 200), max_size=50))
def test_packets_are_found_wherever_the_network_cuts_them(bodies: list[bytes], cuts: list[int]) -> None:
    packets: list[mqtt5.PublishPacket] = []
    lost: list[tuple[str, int | None]] = []
    wire = Wire(packets.append, lambda *unread: False, lambda *why: lost.append(why), 2**28)
    data = b"".join(publish("t", body, number % 65_535 + 1) for number, body in enumerate(bodies))
    feed(wire, data, cuts)
    assert [packet.payload for packet in packets] == bodies
    assert lost == []


def feed(wire: Wire, data: bytes, cuts: list[int]) -> None:
    position = 0
    sizes = [*cuts, len(data)]
    for size in sizes:
        while position < len(data):
            buffer = wire.get_buffer(-1)
            part = data[position : position + min(size, len(buffer))]
            buffer[: len(part)] = part
            position += len(part)
            wire.buffer_updated(len(part))
            if size != sizes[-1]:
                break


def test_a_packet_larger_than_the_buffer_makes_it_grow_for_that_long() -> None:
    packets: list[mqtt5.PublishPacket] = []
    wire = Wire(packets.append, lambda *unread: False, lambda *why: None, 2**28)
    body = b"x" * (3 * BUFFER)
    feed(wire, publish("t", body) + publish("t", b"y"), [10_000])
    assert [packet.payload for packet in packets] == [body, b"y"]
    assert len(wire.get_buffer(-1)) == BUFFER


async def test_many_publications_keep_to_the_brokers_receive_maximum() -> None:
    async with Server(connack=mqtt5.ConnAckPacket(receive_max=3).write()) as server:
        connection, _ = await server.connection()
        tasks = [asyncio.create_task(connection.publish(Publication("t", b"x", qos=1))) for _ in range(10)]
        await until(lambda: server.got.count(b"\x00\x01t") == 3)
        await asyncio.sleep(0.05)
        assert server.got.count(b"\x00\x01t") == 3
        await connection.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, ConnectionLostError) for result in results)


async def test_the_brokers_keep_alive_counts() -> None:
    async with Server(connack=mqtt5.ConnAckPacket(server_keep_alive=1).write()) as server:
        connection, heard = await server.connection()
        await until(lambda: b"\xc0\x00" in server.got)
        closure = await soon(connection.closed())
        assert "PINGREQ" in closure.reason
        assert heard.losses == 1
        await connection.close()


@pytest.mark.parametrize(("url", "version"), [("ws://localhost", "5"), ("mqtt://localhost", "3.1.1")])
async def test_what_it_cannot_do_is_a_matter_of_settings(url: str, version: str) -> None:
    with pytest.raises(SettingsError, match="MQTT_TRANSPORT=native"):
        connector(options(url, version, transport="native"))


async def test_a_unix_socket_carries_it_too(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    broker = Mosquitto(tmp_path, f"listener 0 {path}\nallow_anonymous true").start()
    heard = Recorder()
    connection = connector(options(f"unix://{path}"))(heard, 1)
    await connection.open()
    await connection.subscribe([Subscription("t", 1)])
    await connection.publish(Publication("t", b"x", qos=1))
    await until(lambda: heard.bodies == [b"x"])
    await connection.close()
    broker.stop()
    with pytest.raises(BrokerUnreachableError, match="unix://"):
        await connector(options(f"unix://{path}"))(Recorder(), 1).open()


@pytest.mark.parametrize(("version", "transport"), [("3.1.1", "auto"), ("5", "aiomqtt")])
async def test_a_unix_socket_needs_the_native_transport(version: str, transport: str) -> None:
    with pytest.raises(SettingsError, match="unix://"):
        connector(options("unix:///run/m.sock", version, transport=transport))
