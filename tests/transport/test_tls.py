"""TLS with an authority of one's own, client certificates, and WebSocket, against Mosquitto."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trustme
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from core.errors import BrokerRefusedError, BrokerUnreachableError, SettingsError
from core.mqtt.publication import Publication
from core.transport.connect import connector
from core.transport.connection import Subscription
from core.transport.options import ConnectOptions
from tests.support.mosquitto import Mosquitto
from tests.support.recorder import Recorder
from tests.support.waiting import until
from tests.transport.conftest import options


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other.pem")
    server = authority.issue_cert("localhost", "127.0.0.1")
    server.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    client = authority.issue_cert("client@example.org", common_name="meter-1")
    client.private_key_pem.write_to_path(folder / "client.key")
    client.cert_chain_pems[0].write_to_path(folder / "client.pem")
    return folder


@pytest.fixture(scope="module")
def tls(files: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(
        files / "tls", f"cafile {files}/ca.pem\ncertfile {files}/server.pem\nkeyfile {files}/server.pem"
    ).start()
    yield broker
    broker.stop()


async def exchange(chosen: ConnectOptions) -> None:
    """Send a message to oneself, and have it come back."""
    heard = Recorder()
    connection = connector(chosen)(heard, 1)
    try:
        await connection.open()
        await connection.subscribe([Subscription("t", 1)])
        body = b"x" * 200_000
        for _ in range(5):
            await connection.publish(Publication("t", body, qos=1))
        await until(lambda: len(heard.messages) == 5)
        connection.acknowledge([message.packet_id for message in heard.messages])
        assert set(heard.bodies) == {body}
    finally:
        await connection.close()


@pytest.mark.parametrize("version", ["native 5", "aiomqtt 5", "aiomqtt 3.1.1"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_an_authority_of_ones_own_is_trusted(tls: Mosquitto, files: Path, version: str, host: str) -> None:
    await exchange(options(f"mqtts://{host}:{tls.port}", version, ca_file=files / "ca.pem"))


@pytest.mark.parametrize("transport", ["native", "aiomqtt"])
@pytest.mark.parametrize("ca", [None, "other.pem"])
async def test_a_certificate_of_an_unknown_authority_is_refused(
    tls: Mosquitto, files: Path, ca: str | None, transport: str
) -> None:
    chosen = options(f"mqtts://localhost:{tls.port}", transport=transport, ca_file=files / ca if ca else None)
    with pytest.raises(BrokerUnreachableError, match="certificate verify failed"):
        await exchange(chosen)


async def test_a_certificate_for_another_host_is_refused(authority: trustme.CA, files: Path, tmp_path: Path) -> None:
    authority.issue_cert("elsewhere.example").private_key_and_cert_chain_pem.write_to_path(tmp_path / "wrong.pem")
    config = f"cafile {files}/ca.pem\ncertfile {tmp_path}/wrong.pem\nkeyfile {tmp_path}/wrong.pem"
    broker = Mosquitto(tmp_path / "broker", config).start()
    with pytest.raises(BrokerUnreachableError, match="certificate verify failed"):
        await exchange(options(f"mqtts://localhost:{broker.port}", ca_file=files / "ca.pem"))
    await exchange(options(f"mqtts://localhost:{broker.port}", ca_file=files / "ca.pem", tls_verify=False))
    broker.stop()


async def test_without_tls_a_tls_broker_is_no_answer(tls: Mosquitto) -> None:
    with pytest.raises((BrokerUnreachableError, BrokerRefusedError), match="mqtt://localhost"):
        await exchange(options(f"mqtt://localhost:{tls.port}", "3.1.1", connect_timeout=2))


@pytest.fixture(scope="module")
def mutual(files: Path) -> Iterator[Mosquitto]:
    config = (
        f"cafile {files}/ca.pem\ncertfile {files}/server.pem\nkeyfile {files}/server.pem\n"
        "require_certificate true\nuse_identity_as_username true"
    )
    broker = Mosquitto(files / "mutual", config, anonymous=False).start()
    yield broker
    broker.stop()


@pytest.mark.parametrize("version", ["native 5", "aiomqtt 5", "aiomqtt 3.1.1"])
async def test_a_client_certificate_lets_in(mutual: Mosquitto, files: Path, version: str) -> None:
    certificate = {"cert_file": files / "client.pem", "key_file": files / "client.key"}
    await exchange(options(f"mqtts://localhost:{mutual.port}", version, ca_file=files / "ca.pem", **certificate))


async def test_without_a_client_certificate_one_stays_out(mutual: Mosquitto, files: Path) -> None:
    with pytest.raises((BrokerUnreachableError, BrokerRefusedError)):
        await exchange(options(f"mqtts://localhost:{mutual.port}", ca_file=files / "ca.pem", connect_timeout=3))


async def test_files_that_are_no_certificates_are_a_matter_of_settings(tls: Mosquitto, files: Path) -> None:
    (files / "none.pem").write_text("nothing")
    with pytest.raises(SettingsError, match="MQTT_CA_FILE"):
        await exchange(options(f"mqtts://localhost:{tls.port}", ca_file=files / "none.pem"))
    with pytest.raises(SettingsError, match="MQTT_CERT_FILE"):
        chosen = options(f"mqtts://localhost:{tls.port}", ca_file=files / "ca.pem", cert_file=files / "none.pem")
        await exchange(chosen)


@asynccontextmanager
async def websocket(port: int, context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """Give the port of a WebSocket server that speaks the subprotocol mqtt, in front of the broker on ``port``.

    Debian's Mosquitto is built without it.
    """

    async def relay(client: ServerConnection) -> None:
        assert client.subprotocol == "mqtt"
        assert client.request is not None
        assert client.request.path == "/mqtt"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def down() -> None:
            while data := await reader.read(65_536):
                await client.send(data)
            await client.close()

        pumping = asyncio.create_task(down())
        with suppress(ConnectionClosed):
            async for data in client:
                assert isinstance(data, bytes)
                writer.write(data)
        writer.close()
        await writer.wait_closed()
        pumping.cancel()
        await asyncio.wait([pumping])

    async with serve(relay, "127.0.0.1", 0, subprotocols=[Subprotocol("mqtt")], ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_websocket(mosquitto: Mosquitto, authority: trustme.CA, files: Path, version: str, scheme: str) -> None:
    context = None
    if scheme == "wss":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(context)
    async with websocket(mosquitto.port, context) as port:
        await exchange(options(f"{scheme}://localhost:{port}/mqtt", version, ca_file=files / "ca.pem"))
