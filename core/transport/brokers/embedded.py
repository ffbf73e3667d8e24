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
MAX_INFLIGHT = 1000
WATCH_EVERY = 1.0
MAX_PAUSE = 30.0

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
    """The broker behind an ``embedded://`` URL: started here, or another one that already answers there.

    MQTT 3.1.1 is spoken on the URL's port and MQTT 5 on the next one; messages cross between the two. What it holds is in
    memory: it is for development. Only loopback addresses are allowed.
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
                "listens on this machine only; write embedded://127.0.0.1:1883, or mqtt://... for another broker"
            )
        if options.port > 65_534:
            raise SettingsError(f"MQTT_URL=embedded://{host}:{options.port}: the next port, for MQTT 5, must be one too")
        self._options = options
        self._host = host
        self.port = options.port
        self._broker: Broker | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._config: tempfile.TemporaryDirectory[str] | None = None

    @property
    def started_here(self) -> bool:
        """Whether the broker is this process's own."""
        return self._broker is not None

    async def start(self) -> ConnectOptions:
        """Start the broker, or find the one that is there; give the options to connect to it with.

        Raises StartError where something else has one of the two ports.
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
        # Ctrl-C goes to all processes of the terminal: the broker must outlive it until all is acknowledged, and a child
        # inherits that a signal is ignored. start() is not run in a thread, since signals are set in the main one only.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            broker.start()
        except (OSError, RuntimeError) as error:
            raise StartError(
                f"the embedded broker cannot listen on {self._host}:{self.port} and :{self.port + 1}: {one_line(error)}; "
                "choose another port in MQTT_URL, such as embedded://127.0.0.1:2883"
            ) from None
        finally:
            signal.signal(signal.SIGINT, before)
        self._broker = broker

    async def _watch(self) -> None:
        """Start the broker again should it end; the session reconnects by itself."""
        pauses = Pauses(WATCH_EVERY, MAX_PAUSE)
        while True:
            await asyncio.sleep(pauses.next())
            if self._broker is not None and self._broker.is_running:
                pauses.reset()
                continue
            log.error("the embedded broker has ended, starting it again")
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
    """Say whether an MQTT broker is there. Raises StartError where something else is."""
    answer = await probe(host, port, "3.1.1")
    if answer is Answer.NOBODY:
        return False
    if answer in {Answer.BROKER, Answer.OTHER_VERSION}:
        return True
    raise StartError(
        f"port {port} of {host} is taken by {answer.value}; choose another port in MQTT_URL, such as "
        f"embedded://{host}:{port + 1000 if port < 64_000 else 1883}"
    )


async def _running(options: ConnectOptions, host: str) -> ConnectOptions:
    """Give the options to connect to the broker that runs at the address of an embedded one."""
    port = options.port
    # An embedded broker of another process speaks MQTT 5 on the next port; others speak both on one.
    if options.version == "5" and await probe(host, port, "5", 1.0) is not Answer.BROKER:
        if port < 65_535 and await probe(host, port + 1, "5", 1.0) is Answer.BROKER:
            port += 1
        else:
            options = replace(options, version="3.1.1")
    return replace(options, scheme="mqtt", host=host, port=port)


async def find_running(options: ConnectOptions) -> ConnectOptions:
    """Give the options to connect to the broker of ``options`` without starting one: for commands beside the worker.

    Raises BrokerUnreachableError where an embedded broker is meant and none runs.
    """
    if options.scheme != "embedded":
        return options
    host = "127.0.0.1" if options.host == "localhost" else options.host
    if not await _answers(host, options.port):
        raise BrokerUnreachableError(
            f"no broker answers at {host}:{options.port}; start the worker first, in another terminal: make run"
        )
    return await _running(options, host)
