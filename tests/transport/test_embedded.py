"""The embedded broker: on this machine only, beside others, and gone with its worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import psutil
import pytest

from core.errors import BrokerUnreachableError, SettingsError, StartError
from core.mqtt.publication import Publication
from core.transport.brokers import embedded as module
from core.transport.brokers import probe
from core.transport.brokers.embedded import EmbeddedBroker, find_running
from core.transport.connect import connector
from core.transport.connection import Connection, Subscription
from core.transport.options import ConnectOptions
from tests.support.mosquitto import MOSQUITTO_PUB, Mosquitto, free_pair, require_mosquitto
from tests.support.recorder import Recorder
from tests.support.tcp_server import TcpServer, serving
from tests.support.waiting import until
from tests.transport.conftest import options

ROOT = Path(__file__).parents[2]
CONNACK = b"\x20\x02\x00\x00"


class Started(Protocol):
    """Starts the embedded broker on a port, to be spoken to by a version of MQTT."""

    async def __call__(self, port: int, version: str = ...) -> tuple[EmbeddedBroker, ConnectOptions]: ...


@pytest.fixture
async def started() -> AsyncIterator[Started]:
    made: list[EmbeddedBroker] = []

    async def start(port: int, version: str = "5") -> tuple[EmbeddedBroker, ConnectOptions]:
        broker = EmbeddedBroker(options(f"embedded://127.0.0.1:{port}", version))
        made.append(broker)
        return broker, await broker.start()

    yield start
    for broker in made:
        await broker.stop()


async def listening(chosen: ConnectOptions, *subscriptions: Subscription) -> tuple[Connection, Recorder]:
    heard = Recorder()
    connection = connector(chosen)(heard, 1)
    await connection.open()
    await connection.subscribe(subscriptions)
    return connection, heard


def child_on(port: int) -> psutil.Process | None:
    """Give the child of this process that listens on ``port``."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if any(c.laddr.port == port and c.status == "LISTEN" for c in child.net_connections()):
                return child
    return None


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "broker.example"])
def test_it_listens_on_no_address_that_others_reach(host: str) -> None:
    with pytest.raises(SettingsError, match="this machine only"):
        EmbeddedBroker(options(f"embedded://{host}:1883"))


async def test_its_ports_are_open_on_the_loopback_address_only(started: Started) -> None:
    port = free_pair()
    broker, _ = await started(port)
    child = child_on(port)
    assert child is not None
    addresses = {c.laddr for c in child.net_connections() if c.status == "LISTEN"}
    assert addresses == {("127.0.0.1", port), ("127.0.0.1", port + 1)}
    assert broker.started_here


@pytest.mark.parametrize(("version", "offset"), [("3.1.1", 0), ("5", 1)])
async def test_mosquittos_own_client_reaches_both_versions(started: Started, version: str, offset: int) -> None:
    require_mosquitto()
    assert MOSQUITTO_PUB is not None
    _, chosen = await started(free_pair())
    connection, heard = await listening(chosen, Subscription("t/#", 1))
    port = str(chosen.port - 1 + offset)
    arguments = ["-V", "mqttv5" if version == "5" else "mqttv311", "-p", port, "-q", "1", "-t", "t/x", "-m", version]
    await asyncio.to_thread(subprocess.run, [MOSQUITTO_PUB, *arguments], check=True, timeout=20)
    await until(lambda: heard.bodies == [version.encode()])
    await connection.close()


async def test_one_that_already_runs_is_used(started: Started) -> None:
    port = free_pair()
    await started(port)
    second, chosen = await started(port)
    assert not second.started_here
    assert (chosen.scheme, chosen.port, chosen.version) == ("mqtt", port + 1, "5")
    found = await find_running(options(f"embedded://127.0.0.1:{port}"))
    assert found.port == port + 1


async def test_another_broker_on_the_port_is_used_by_the_version_it_speaks(started: Started, tmp_path: Path) -> None:
    other = Mosquitto(tmp_path).start()
    broker, chosen = await started(other.port)
    assert not broker.started_here
    assert (chosen.port, chosen.version) == (other.port, "5")
    connection, heard = await listening(chosen, Subscription("t", 1))
    await connection.publish(Publication("t", b"x", qos=1))
    await until(lambda: heard.bodies == [b"x"])
    await connection.close()
    other.stop()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\n", b""])
async def test_something_else_on_the_port_is_one_clear_error(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "MAX_ANSWER", 0.5)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(answer)
        await writer.drain()
        if not answer:
            await reader.read()
        writer.close()

    server = await TcpServer(serve).start()
    port = server.port
    with pytest.raises(StartError, match=f"port {port} of 127.0.0.1 is taken"):
        await EmbeddedBroker(options(f"embedded://127.0.0.1:{port}")).start()
    await server.stop()


@asynccontextmanager
async def answering(answer: Callable[[], Awaitable[bytes]]) -> AsyncIterator[int]:
    """Yield the port of a server that has ``answer`` give the bytes with which it answers CONNECT, or none to hang up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        said = await answer()
        writer.write(said)
        if said:
            await reader.read()
        writer.close()

    async with serving(serve) as port:
        yield port


async def test_a_broker_that_is_slow_to_answer_is_waited_for_and_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(probe, "TELL_AFTER", 0.05)

    async def answer() -> bytes:
        await until(lambda: "has not answered CONNECT" in caplog.text)
        return CONNACK

    async with answering(answer) as port:
        found = await find_running(options(f"embedded://127.0.0.1:{port}"))
        assert (found.scheme, found.port, found.version) == ("mqtt", port, "5")
    assert f"whoever listens on 127.0.0.1:{port}" in caplog.text


async def test_a_broker_that_hangs_up_while_it_begins_is_asked_again() -> None:
    answers = iter([b"", b"", CONNACK, CONNACK])

    async def answer() -> bytes:
        return next(answers)

    async with answering(answer) as port:
        found = await find_running(options(f"embedded://127.0.0.1:{port}"))
        assert (found.scheme, found.port, found.version) == ("mqtt", port, "5")


async def test_something_that_hangs_up_every_time_is_one_clear_error() -> None:
    async def answer() -> bytes:
        return b""

    async with answering(answer) as port:
        with pytest.raises(StartError, match=r"closed the connection instead of answering CONNECT\. Choose another port"):
            await EmbeddedBroker(options(f"embedded://127.0.0.1:{port}")).start()


async def test_something_else_on_the_next_port_is_one_clear_error() -> None:
    port = free_pair()
    with socket.create_server(("127.0.0.1", port + 1)):
        broker = EmbeddedBroker(options(f"embedded://127.0.0.1:{port}"))
        with pytest.raises(StartError, match="Choose another port"):
            await broker.start()
        await broker.stop()


async def test_without_a_running_one_the_commands_say_what_to_do() -> None:
    with pytest.raises(BrokerUnreachableError, match="make run"):
        await find_running(options(f"embedded://127.0.0.1:{free_pair()}"))


async def test_one_that_died_is_started_again(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCH_EVERY", 0.1)
    port = free_pair()
    _, chosen = await started(port)
    child = child_on(port)
    assert child is not None
    child.kill()
    await until(lambda: child_on(port) not in {None, child})
    connection, heard = await listening(chosen, Subscription("t", 1))
    await connection.publish(Publication("t", b"x", qos=1))
    await until(lambda: heard.bodies == [b"x"])
    await connection.close()


WORKER = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from core.transport.brokers.embedded import EmbeddedBroker
from core.transport.options import parse_url

async def main():
    await EmbeddedBroker(parse_url(f"embedded://127.0.0.1:{sys.argv[1]}")).start()
    print("up", flush=True)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(60)

asyncio.run(main())
"""
Running = tuple[subprocess.Popen[bytes], int]
"""The process of WORKER, and its broker's port."""


@pytest.fixture
def worker() -> Iterator[Running]:
    port = free_pair()
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(port), str(ROOT)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    yield process, port
    if process.poll() is None:
        process.kill()
    process.wait()
    process.stdout.close()


async def test_ctrl_c_in_the_terminal_leaves_it_running_for_its_worker(worker: Running) -> None:
    process, port = worker
    os.killpg(process.pid, signal.SIGINT)
    await asyncio.sleep(0.5)
    socket.create_connection(("127.0.0.1", port), 20).close()


async def test_it_ends_with_a_worker_that_is_killed(worker: Running) -> None:
    process, port = worker
    process.kill()

    def closed() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 20).close()
        except ConnectionError:
            return True
        return False

    await until(closed)
