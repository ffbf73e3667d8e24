"""A session: reconnects for ever, says so once, and neither loses nor doubles what it publishes."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from core.errors import BrokerRefusedError, BrokerUnreachableError, ConnectionLostError, SessionTakenOverError
from core.mqtt.publication import Publication
from core.session import session as module
from core.session.session import Session
from core.transport.brokers.memory import MemoryBroker
from core.transport.connect import connector
from core.transport.connection import Connect, Connection, Listener, Subscription
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.recorder import Recorder
from tests.support.tcp_server import TcpServer
from tests.support.waiting import soon, until
from tests.transport.conftest import options


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(module, "MAX_PAUSE", 0.2)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "routemq.transport"]


class Opened(Protocol):
    """Makes sessions, which are stopped when the test ends."""

    def __call__(self, connect: Connect, *subscriptions: Subscription, address: str = ...) -> Session: ...


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    sessions: list[Session] = []

    def make(connect: Connect, *subscriptions: Subscription, address: str = "mqtt://broker:1883") -> Session:
        made = Session(connect, address, subscriptions)
        sessions.append(made)
        return made

    yield make
    for one in sessions:
        await one.stop()


class Attempts:
    """Connects as ``connect`` does, and counts how often."""

    def __init__(self, connect: Connect) -> None:
        self.number = 0
        self._connect = connect

    def __call__(self, listener: Listener, number: int) -> Connection:
        self.number += 1
        return self._connect(listener, number)


@pytest.fixture(params=["native 5", "aiomqtt 5", "aiomqtt 3.1.1"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_after_the_broker_was_away_the_session_goes_on(
    tmp_path: Path, opened: Opened, version: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Mosquitto(tmp_path).start()
    heard = Recorder()
    chosen = options(broker.url, version)
    session = opened(connector(chosen), Subscription("t/#", 1), address=chosen.address)
    session.start(heard)
    await soon(session.connected())
    out = opened(connector(options(broker.url, version, clean_start=True)))
    out.start(Recorder())
    await out.publish(Publication("t", b"before", qos=1))
    await until(lambda: heard.bodies == [b"before"])
    session.acknowledge(heard.messages)
    await asyncio.to_thread(getattr(broker, how))
    await until(lambda: heard.losses == 1)
    pending = asyncio.create_task(out.publish(Publication("t", b"while away", qos=1)))
    await until(lambda: len(lines(caplog)) >= 2)
    await asyncio.to_thread(broker.start)
    await soon(pending)
    await soon(session.connected())
    # A killed broker may have forgotten the session, and with it the message published before that was made anew.
    await out.publish(Publication("t", b"after", qos=1))
    await until(lambda: heard.bodies[-1] == b"after")
    assert how == "kill" or heard.bodies == [b"before", b"while away", b"after"]
    own = [line for line in lines(caplog) if chosen.address in line]
    assert sum("lost" in line and "still" not in line for line in own) == 1
    assert sum("connected again" in line for line in own) == 1
    await session.stop()
    await out.stop()
    await asyncio.to_thread(broker.stop)


async def test_a_broker_that_lost_the_session_is_told_the_subscriptions_again(
    tmp_path: Path, opened: Opened, version: str
) -> None:
    broker = Mosquitto(tmp_path).start()
    heard = Recorder()
    session = opened(connector(options(broker.url, version)), Subscription("t", 1))
    session.start(heard)
    await soon(session.connected())
    await asyncio.to_thread(broker.stop)
    (tmp_path / "mosquitto.db").unlink()
    await asyncio.to_thread(broker.start)
    await until(lambda: len(heard.connacks) == 2)
    assert heard.connacks[1].session_present is False
    await session.connected()
    await session.publish(Publication("t", b"x", qos=1))
    await until(lambda: heard.bodies == [b"x"])
    await session.stop()
    await asyncio.to_thread(broker.stop)


async def test_a_broker_that_is_not_there_is_told_of_once_and_waited_for(
    tmp_path: Path, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    attempts = Attempts(connector(options(f"mqtt://127.0.0.1:{port}")))
    session = opened(attempts, address=f"mqtt://127.0.0.1:{port}")
    session.start(Recorder())
    await until(lambda: attempts.number > 5)
    (line,) = lines(caplog)
    assert f"no connection: mqtt://127.0.0.1:{port} cannot be reached" in line
    assert "refused" in line
    assert "Trying again" in line


async def test_an_unknown_host_is_one_clear_line(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    chosen = options("mqtt://no.such.host.invalid:1883")
    attempts = Attempts(connector(chosen))
    session = opened(attempts, address=chosen.address)
    session.start(Recorder())
    await until(lambda: attempts.number > 2)
    (line,) = lines(caplog)
    assert "no.such.host.invalid" in line
    assert "\n" not in line


async def test_a_refused_login_is_one_clear_line_without_the_password(
    tmp_path: Path, opened: Opened, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Mosquitto(tmp_path, anonymous=False).start()
    url = broker.url.replace("mqtt://", "mqtt://somebody:s3cr3t@")
    chosen = options(url, version)
    caplog.set_level(logging.DEBUG)
    attempts = Attempts(connector(chosen))
    session = opened(attempts, address=chosen.address)
    session.start(Recorder())
    await until(lambda: attempts.number > 3)
    (line,) = lines(caplog)
    assert "refused the connection" in line
    assert "not authori" in line
    assert "'somebody'" in line
    assert "s3cr3t" not in caplog.text
    await session.stop()
    broker.stop()


async def test_a_user_with_the_right_password_is_let_in(tmp_path: Path, opened: Opened, version: str) -> None:
    # The form in which Mosquitto keeps passwords: PBKDF2 with SHA-512.
    salt = b"0123456789ab"
    digest = hashlib.pbkdf2_hmac("sha512", b"p@ss/word", salt, 101)
    tmp_path.mkdir(exist_ok=True)
    file = tmp_path / "passwords"
    file.write_text(f"user:$7$101${b64encode(salt).decode()}${b64encode(digest).decode()}\n")
    broker = Mosquitto(tmp_path, f"password_file {file}", anonymous=False).start()
    session = opened(connector(options(broker.url.replace("mqtt://", "mqtt://user:p%40ss%2Fword@"), version)))
    session.start(Recorder())
    await soon(session.connected())
    await session.stop()
    broker.stop()


async def test_a_session_that_the_broker_gave_to_another_client_is_not_fought_for(opened: Opened) -> None:
    # "Session taken over" (MQTT 5, 3.14.2.1), which Mosquitto 2.0.11 does not say.
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x00\x00" + b"\xe0\x01\x8e")
        await writer.drain()
        await reader.read(1000)
        writer.close()

    server = await TcpServer(serve).start()
    chosen = options(f"mqtt://127.0.0.1:{server.port}")
    task = opened(connector(chosen), address=chosen.address).start(Recorder())
    with pytest.raises(SessionTakenOverError, match="MQTT_CLIENT_ID"):
        await soon(task)
    await server.stop()


async def test_a_broker_of_an_older_version_is_spoken_to_in_its_own(opened: Opened) -> None:
    asked: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        packet = await reader.read(1000)
        version = packet[2 + 2 + 4]
        asked.append(version)
        if version == 5:
            writer.write(b"\x20\x02\x00\x01")
            writer.close()
        else:
            writer.write(b"\x20\x02\x00\x00")
            await reader.read(1000)
            writer.close()

    server = await TcpServer(serve).start()
    port = server.port
    heard = Recorder()
    session = opened(connector(options(f"mqtt://127.0.0.1:{port}")))
    session.start(heard)
    await soon(session.connected())
    assert asked == [5, 4]
    assert heard.connacks[0].version == "3.1.1"
    await session.stop()
    await server.stop()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x7f\xff\xff\xff"])
async def test_something_else_at_the_address_is_a_clear_error_and_no_hang(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(answer)
        writer.close()

    server = await TcpServer(serve).start()
    port = server.port
    made = connector(options(f"mqtt://127.0.0.1:{port}", "3.1.1", connect_timeout=1))(Recorder(), 1)
    with pytest.raises((BrokerUnreachableError, BrokerRefusedError), match=f"mqtt://127.0.0.1:{port}"):
        await soon(made.open())
    await made.close()
    await server.stop()


async def test_a_broker_that_says_nothing_does_not_hang_the_connect() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await TcpServer(serve).start()
    port = server.port
    made = connector(options(f"mqtt://127.0.0.1:{port}", connect_timeout=0.5))(Recorder(), 1)
    with pytest.raises(BrokerUnreachableError, match="no answer to CONNECT"):
        await soon(made.open())
    await made.close()
    await server.stop()


async def test_a_pause_longer_than_the_keep_alive_keeps_the_connection(tmp_path: Path, opened: Opened, version: str) -> None:
    # Mosquitto hangs up after one and a half times the keep-alive, 6 s here, and our side after two PINGREQs unanswered.
    # aiomqtt sends PINGREQ after 4 s: the other 2 s are what a busy machine may take.
    broker = Mosquitto(tmp_path).start()
    heard = Recorder()
    session = opened(connector(options(broker.url, version, keepalive=4)), Subscription("t", 1))
    session.start(heard)
    await session.connected()
    session.pause_reading()
    out = opened(connector(options(broker.url, version, clean_start=True)))
    out.start(Recorder())
    await out.publish(Publication("t", b"x", qos=1))
    await asyncio.sleep(13)
    assert (heard.losses, heard.messages) == (0, [])
    session.resume_reading()
    await until(lambda: heard.bodies == [b"x"])
    await asyncio.sleep(4.5)
    assert heard.losses == 0
    await session.stop()
    await out.stop()
    broker.stop()


async def test_a_frozen_broker_is_noticed_by_the_keep_alive(
    tmp_path: Path, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Mosquitto(tmp_path).start()
    heard = Recorder()
    session = opened(connector(options(broker.url, keepalive=1)))
    session.start(heard)
    await session.connected()
    broker.freeze()
    await until(lambda: heard.losses == 1)
    await until(lambda: any("PINGREQ" in line for line in lines(caplog)))
    broker.thaw()
    await until(lambda: len(heard.connacks) >= 2)
    await session.stop()
    broker.stop()


async def test_a_pause_outlasts_a_reconnect() -> None:
    memory = MemoryBroker()
    heard = Recorder()
    session = Session(memory.connector("c"), "memory", [Subscription("t", 1)])
    session.start(heard)
    await session.connected()
    session.pause_reading()
    memory.drop_connections()
    await until(lambda: len(heard.connacks) == 2)
    await session.connected()
    memory.publish(Publication("t", b"x", qos=1))
    assert heard.messages == []
    session.resume_reading()
    await until(lambda: heard.bodies == [b"x"])
    await session.stop()


async def test_only_messages_of_the_present_connection_are_acknowledged() -> None:
    memory = MemoryBroker()
    heard = Recorder()
    session = Session(memory.connector("c"), "memory", [Subscription("t", 1)])
    session.start(heard)
    await session.connected()
    memory.publish(Publication("t", b"x", qos=1))
    memory.drop_connections()
    await until(lambda: len(heard.messages) == 2)
    session.acknowledge(heard.messages[:1])
    assert list(memory.acknowledged) == []
    session.acknowledge(heard.messages)
    assert list(memory.acknowledged) == [heard.messages[1].packet_id]
    await session.stop()


async def test_a_message_too_large_for_the_broker_is_refused_and_the_next_one_goes(tmp_path: Path, opened: Opened) -> None:
    broker = Mosquitto(tmp_path, "max_packet_size 2000").start()
    session = opened(connector(options(broker.url)))
    session.start(Recorder())
    with pytest.raises(BrokerRefusedError, match="2,000"):
        await soon(session.publish(Publication("t", b"x" * 10_000, qos=1)))
    await soon(session.publish(Publication("t", b"x", qos=1)))
    await session.stop()
    broker.stop()


async def test_refused_subscriptions_are_told_and_the_others_stand(
    tmp_path: Path, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "acl").write_text("topic readwrite open/#\n")
    broker = Mosquitto(tmp_path, f"acl_file {tmp_path}/acl").start()
    heard = Recorder()
    session = opened(connector(replace(options(broker.url))), Subscription("open/x", 1), Subscription("closed/x", 1))
    session.start(heard)
    await session.connected()
    await session.publish(Publication("open/x", b"x", qos=1))
    await until(lambda: heard.bodies == [b"x"])
    await session.stop()
    broker.stop()


@pytest.mark.case(11)
async def test_a_broker_that_is_slow_is_not_taken_for_one_of_an_older_version() -> None:
    asked: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        packet = await reader.read(1000)
        asked.append(packet[2 + 2 + 4])
        await asyncio.sleep(3.5)
        writer.write(b"\x20\x03\x00\x00\x00")
        await reader.read(1000)
        writer.close()

    server = await TcpServer(serve).start()
    port = server.port
    made = connector(options(f"mqtt://127.0.0.1:{port}", connect_timeout=60))(Recorder(), 1)
    assert (await made.open()).version == "5"
    assert asked == [5]
    await made.close()
    await server.stop()


class NotReady(Recorder):
    """A listener that is not ready for SUBSCRIBE as often as ``times`` says."""

    times = 0

    async def subscribing(self) -> None:
        if self.times:
            self.times -= 1
            raise ConnectionLostError("not ready yet")


async def test_a_new_session_is_subscribed_to_once_the_listener_is_ready(caplog: pytest.LogCaptureFixture) -> None:
    memory = MemoryBroker()
    heard = NotReady()
    session = Session(memory.connector("c"), "memory", [Subscription("t", 1)])
    session.start(heard)
    await session.connected()
    heard.times = 2
    lost = memory._sessions.pop("c")
    assert lost.connection is not None
    lost.connection.drop("the broker lost everything")
    # The attempts have made a session at the broker, which has no subscriptions yet.
    await until(lambda: len(heard.connacks) == 4)
    await soon(session.connected())
    assert [connack.session_present for connack in heard.connacks] == [False, False, True, True]
    assert memory.filters("c") == {"t"}
    assert sum("not ready yet" in line for line in lines(caplog)) == 1
    memory.publish(Publication("t", b"x", qos=1))
    await until(lambda: heard.bodies == [b"x"])
    await session.stop()


@pytest.mark.parametrize("transport", ["auto", "native"])
async def test_a_network_that_swallows_the_connection_is_not_taken_for_an_older_version(transport: str) -> None:
    with socket.socket() as listening, ExitStack() as waiting:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        # Nobody accepts these, and the system drops whatever comes once its queue is full.
        for _ in range(4):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        chosen = options(f"mqtt://127.0.0.1:{listening.getsockname()[1]}", transport=transport, connect_timeout=0.5)
        made = connector(chosen)(Recorder(), 1)
        with pytest.raises(BrokerUnreachableError, match=r"no network connection within 0\.5 s"):
            await made.open()
        await made.close()
