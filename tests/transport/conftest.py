"""Every transport against every broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from core.mqtt.publication import Publication
from core.transport.brokers.embedded import EmbeddedBroker
from core.transport.brokers.memory import MemoryBroker, MemoryConnection
from core.transport.connect import connector
from core.transport.connection import Connection, Subscription
from core.transport.options import ConnectOptions, parse_url
from tests.support.mosquitto import Mosquitto, free_pair, require_mosquitto
from tests.support.proxy import Proxy
from tests.support.recorder import Recorder

_names = count(1)


def options(url: str, version: str = "5", **more: Any) -> ConnectOptions:
    """Give options with a client identifier of their own; ``version`` may name the transport too: "aiomqtt 5"."""
    if " " in version:
        more["transport"], version = version.split()
    return replace(parse_url(url), client_id=f"t-{next(_names)}", version=version, **more)


class Broker:
    """A broker as the tests of the contract see it: it makes connections of named clients."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.version = "3.1.1" if kind.endswith("3.1.1") else "5"
        self.sets_dup = not kind.startswith("embedded")
        self.memory: MemoryBroker | None = None
        self.options: ConnectOptions | None = None
        self._opened: list[Connection] = []
        self._proxy: Proxy | None = None
        # One Mosquitto serves all tests, and keeps their sessions.
        self._prefix = f"c{next(_names)}-"

    def connection(
        self,
        client_id: str,
        number: int = 1,
        *,
        clean_start: bool = False,
        receive_maximum: int = 1000,
        will: Publication | None = None,
        through: Proxy | None = None,
    ) -> tuple[Connection, Recorder]:
        listener = Recorder()
        client_id = self._prefix + client_id
        if self.memory is not None:
            connect = self.memory.connector(client_id, clean_start=clean_start, receive_maximum=receive_maximum, will=will)
        else:
            assert self.options is not None
            chosen = replace(
                self.options, client_id=client_id, clean_start=clean_start, receive_maximum=receive_maximum, will=will
            )
            connect = connector(chosen if through is None else replace(chosen, host="127.0.0.1", port=through.port))
        made = connect(listener, number)
        self._opened.append(made)
        return made, listener

    async def open(
        self, client_id: str, *subscriptions: Subscription, number: int = 1, **how: Any
    ) -> tuple[Connection, Recorder]:
        made, listener = self.connection(client_id, number, **how)
        await made.open()
        if subscriptions:
            await made.subscribe(subscriptions)
        return made, listener

    async def open_to_be_cut(self, client_id: str, **how: Any) -> Connection:
        """Open the connection that ``cut`` breaks."""
        if self.options is not None:
            self._proxy = await Proxy(self.options.port).start()
        made, _ = await self.open(client_id, through=self._proxy, **how)
        return made

    def cut(self, connection: Connection) -> None:
        """Break the network connection, without a DISCONNECT."""
        if isinstance(connection, MemoryConnection):
            connection.drop("cut")
        else:
            assert self._proxy is not None
            self._proxy.cut()

    async def close(self) -> None:
        for made in self._opened:
            await made.close()
        if self._proxy is not None:
            await self._proxy.stop()


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    require_mosquitto()
    broker = Mosquitto(tmp_path_factory.mktemp("mosquitto")).start()
    yield broker
    broker.stop()


@pytest.fixture
async def embedded() -> AsyncIterator[EmbeddedBroker]:
    broker = EmbeddedBroker(options(f"embedded://127.0.0.1:{free_pair()}"))
    yield broker
    await broker.stop()


KINDS = ["memory"] + [
    f"{broker} {transport}"
    for broker in ("mosquitto", "embedded")
    for transport in ("native 5", "aiomqtt 5", "aiomqtt 3.1.1")
]


@pytest.fixture(params=KINDS)
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    kind = request.param
    made = Broker(kind)
    if kind == "memory":
        made.memory = MemoryBroker()
    elif kind.startswith("mosquitto"):
        made.options = options(request.getfixturevalue("mosquitto").url, made.version, transport=kind.split()[1])
    else:
        port = free_pair()
        own = EmbeddedBroker(options(f"embedded://127.0.0.1:{port}", made.version, transport=kind.split()[1]))
        made.options = await own.start()
    yield made
    await made.close()
    if kind.startswith("embedded"):
        await own.stop()
    await asyncio.sleep(0)
