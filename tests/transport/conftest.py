"""Every transport against every broker."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import count

import pytest

from core.transport.brokers.embedded import EmbeddedBroker
from core.transport.brokers.memory import MemoryBroker
from core.transport.connect import connector
from core.transport.connection import Closure
from core.transport.options import ConnectOptions, parse_url
from tests.support.mosquitto import Mosquitto, free_pair, require_mosquitto
from tests.support.recorder import Recorder

_names = count(1)


def options(url: str, version: str = "5", **more: object) -> ConnectOptions:
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
        self._opened = []
        # One Mosquitto serves all tests, and keeps their sessions.
        self._prefix = f"c{next(_names)}-"

    def connection(
        self, client_id: str, number: int = 1, *, clean_start: bool = False, receive_maximum: int = 1000, will=None
    ):
        listener = Recorder()
        client_id = self._prefix + client_id
        if self.memory is not None:
            connect = self.memory.connector(client_id, clean_start=clean_start, receive_maximum=receive_maximum, will=will)
        else:
            how = {"clean_start": clean_start, "receive_maximum": receive_maximum, "will": will}
            connect = connector(replace(self.options, client_id=client_id, **how))
        made = connect(listener, number)
        made.listener_ = listener
        self._opened.append(made)
        return made, listener

    async def open(self, client_id: str, *subscriptions, number: int = 1, **how):
        made, listener = self.connection(client_id, number, **how)
        await made.open()
        if subscriptions:
            await made.subscribe(subscriptions)
        return made, listener

    def cut(self, connection) -> None:
        """Break the network connection, without a DISCONNECT."""
        if self.memory is not None:
            connection.drop("cut")
        else:
            carried = getattr(connection, "_chosen", connection)
            carried._end(Closure("cut"))
            carried._release()

    async def close(self) -> None:
        for made in self._opened:
            await made.close()


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory):
    require_mosquitto()
    broker = Mosquitto(tmp_path_factory.mktemp("mosquitto")).start()
    yield broker
    broker.stop()


@pytest.fixture
async def embedded():
    broker = EmbeddedBroker(options(f"embedded://127.0.0.1:{free_pair()}"))
    yield broker
    await broker.stop()


KINDS = ["memory"] + [
    f"{broker} {transport}"
    for broker in ("mosquitto", "embedded")
    for transport in ("native 5", "aiomqtt 5", "aiomqtt 3.1.1")
]


@pytest.fixture(params=KINDS)
async def broker(request):
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
