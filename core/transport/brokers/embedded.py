"""The embedded broker, for development: rumqttd, in a process of its own, on this machine only."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import BrokerUnreachableError, SettingsError, StartError, one_line
from core.retry import Pauses
from core.transport.brokers.probe import Answer, probe

if TYPE_CHECKING:
    from iotcore import Broker

    from core.transport.options import ConnectOptions

log = logging.getLogger("routemq.transport")

MAX_PAYLOAD = 64 * 1024 * 1024
"""Bytes of a message that the embedded broker takes."""
MAX_INFLIGHT = 1000
"""Messages that it sends unacknowledged."""
MAX_STARTING = 30.0
"""Seconds that its process may take until it listens."""
WATCH_EVERY = 1.0
"""Seconds between two looks at whether it still runs."""
MAX_PAUSE = 30.0
"""Seconds between two attempts to start it again at the most."""
MAX_HANG_UPS = 4
"""How often whoever listens may close the connection before it is taken for something else than a broker."""
FIRST_PAUSE = 0.1
"""Seconds before it is asked again. Each later pause is twice as long."""

_LISTENER = """
[{kind}.1]
name = "{kind}"
listen = "{host}:{port}"
next_connection_delay_ms = 1

[{kind}.1.connections]
connection_timeout_ms = 60000
max_payload_size = {payload}
max_inflight_count = {inflight}
dynamic_filters = true
"""
_CONFIG = """
id = 0

[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
"""


class EmbeddedBroker:
    """The broker behind an ``embedded://`` URL: one that this process starts, or another one that answers there already.

    It speaks MQTT 3.1.1 on the URL's port and MQTT 5 on the next one. Messages cross between the two. It is for
    development: it keeps everything in memory, and listens on loopback addresses only.
    """

    def __init__(self, options: ConnectOptions) -> None:
        host = "127.0.0.1" if options.host == "localhost" else options.host
        try:
            loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise SettingsError(
                f"MQTT_URL=embedded://{options.host}:{options.port}: the embedded broker asks nobody for a password, so it "
                "listens on this machine only. Write embedded://127.0.0.1:1883, or mqtt://... for another broker"
            )
        if options.port > 65_534:
            raise SettingsError(
                f"MQTT_URL=embedded://{host}:{options.port}: the embedded broker needs the next port too, for MQTT 5, and "
                "there is none. Choose a port of at most 65534"
            )
        self._options = options
        self._host = host
        self.port = options.port
        self._broker: Broker | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._config: tempfile.TemporaryDirectory[str] | None = None

    @property
    def started_here(self) -> bool:
        """Return whether the broker is this process's own."""
        return self._broker is not None

    async def start(self) -> ConnectOptions:
        """Start the broker, or find the one that is there. Return the options to connect to it.

        Raise StartError where something else has one of the two ports.
        """
        if await _answers(self._host, self.port):
            return await _running(self._options, self._host)
        self._config = tempfile.TemporaryDirectory(prefix="routemq-broker-")
        await self._launch()
        self._watcher = asyncio.create_task(self._watch(), name="embedded broker")
        port = self.port + 1 if self._options.version == "5" else self.port
        return replace(self._options, scheme="mqtt", host=self._host, port=port, username=None, password=None)

    async def _launch(self) -> None:
        from iotcore import Broker  # noqa: PLC0415 - only where it is used

        assert self._config is not None  # noqa: S101 - start() came before
        config = Path(self._config.name) / "rumqttd.toml"
        limits = {"payload": MAX_PAYLOAD, "inflight": MAX_INFLIGHT, "host": self._host}
        config.write_text(
            _CONFIG
            + _LISTENER.format(kind="v4", port=self.port, **limits)
            + _LISTENER.format(kind="v5", port=self.port + 1, **limits)
        )
        broker = Broker(config_path=str(config), listen=self._host, port=self.port)
        # Ctrl-C goes to all processes of the terminal. The broker must outlive it until all is acknowledged, and a child
        # inherits that a signal is ignored. start() does not run in a thread, since only the main one may set signals.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            broker.start(MAX_STARTING)
        except (OSError, RuntimeError) as error:
            raise StartError(
                f"the embedded broker cannot listen on {self._host}:{self.port} and :{self.port + 1}: {one_line(error)}. "
                "Choose another port in MQTT_URL, such as embedded://127.0.0.1:2883"
            ) from None
        finally:
            signal.signal(signal.SIGINT, before)
        self._broker = broker

    async def _watch(self) -> None:
        """Start the broker again whenever it has ended. The session reconnects by itself."""
        pauses = Pauses(WATCH_EVERY, MAX_PAUSE)
        while True:
            await asyncio.sleep(pauses.next())
            if self._broker is not None and self._broker.is_running:
                pauses.reset()
                continue
            log.error("the embedded broker has ended. Starting it again")
            try:
                await self._launch()
            except StartError as error:
                log.error("%s", error)  # noqa: TRY400 - the error says it all

    async def stop(self) -> None:
        """Stop the broker, if it is this process's own."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
        if self._broker is not None:
            await asyncio.to_thread(self._broker.stop)
            self._broker = None
        if self._config is not None:
            self._config.cleanup()


async def _answers(host: str, port: int) -> bool:
    """Return whether an MQTT broker answers there. Raise StartError where something else listens."""
    pauses = Pauses(FIRST_PAUSE, MAX_PAUSE)
    answer = await probe(host, port, "3.1.1")
    for _ in range(MAX_HANG_UPS - 1):
        if answer is not Answer.HUNG_UP:
            break
        # So does a broker that is about to end, or has only begun.
        await asyncio.sleep(pauses.next())
        answer = await probe(host, port, "3.1.1")
    if answer is Answer.NOBODY:
        return False
    if answer in {Answer.BROKER, Answer.OTHER_VERSION}:
        return True
    raise StartError(
        f"port {port} of {host} is taken by {answer.value}. Choose another port in MQTT_URL, such as "
        f"embedded://{host}:{port + 1000 if port < 64_000 else 1883}"
    )


async def _running(options: ConnectOptions, host: str) -> ConnectOptions:
    """Return the options to connect to the broker that runs at the address of an embedded one.

    An embedded broker of another process speaks MQTT 5 on the next port. Others speak all their versions on one. Where
    neither port speaks MQTT 5, the connection falls back to MQTT 3.1.1 by itself.
    """
    port = options.port
    if options.version == "5" and await probe(host, port, "5") is not Answer.BROKER:
        following = await probe(host, port + 1, "5") if port < 65_535 else Answer.NOBODY
        port += following is Answer.BROKER
    return replace(options, scheme="mqtt", host=host, port=port)


async def find_running(options: ConnectOptions) -> ConnectOptions:
    """Return the options to connect to the broker of ``options`` without starting one, for commands beside the worker.

    Raise BrokerUnreachableError where an embedded broker is meant and none runs.
    """
    if options.scheme != "embedded":
        return options
    host = "127.0.0.1" if options.host == "localhost" else options.host
    if not await _answers(host, options.port):
        raise BrokerUnreachableError(
            f"no broker answers at {host}:{options.port}. Start the worker first, in another terminal: make run"
        )
    return await _running(options, host)
