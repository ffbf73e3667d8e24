"""A broker that numbers from 1 on each connection, and equal messages: none is acknowledged for another one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from core.context import Context
from core.router import Router
from core.session.session import Session
from core.transport.connect import connector
from tests.support.hostile_broker import HostileBroker, publish, text
from tests.support.memory_worker import running
from tests.support.tcp_server import serving
from tests.support.waiting import until
from tests.transport.conftest import options

DUP = 0x08


def message(number: int, packet_id: int, dup: int = 0) -> bytes:
    packet = publish("5", b"t", b'"open"', packet_id, b"\x26" + text(b"n") + text(b"%d" % number))
    return bytes([packet[0] | dup]) + packet[1:]


class KeepingBroker(HostileBroker):
    """Keeps the session, and sends what it is told to on each connection."""

    def __init__(self, *connections: Sequence[bytes]) -> None:
        super().__init__("5")
        self._on = connections
        self._writer: asyncio.StreamWriter | None = None

    async def _answer(self, first: int, rest: bytes, writer: asyncio.StreamWriter) -> bool:
        if first & 0xF0 != 0x10 or self.connections == 1:
            goes_on = await super()._answer(first, rest, writer)
        else:
            writer.write(b"\x20\x03\x01\x00\x00")
            goes_on = True
        if first & 0xF0 == (0x80 if self.connections == 1 else 0x10):
            self._writer = writer
            for packet in self._on[self.connections - 1]:
                writer.write(packet)
        return goes_on

    def cut(self) -> None:
        assert self._writer is not None
        self._writer.transport.abort()


async def test_an_equal_message_with_other_properties_is_no_redelivery() -> None:
    router = Router()
    may_end = [asyncio.Event() for _ in range(4)]
    done = Counter[int]()

    @router.on("t", order_by=None)
    async def handle(context: Context[Any]) -> None:
        number = int(dict(context["properties"]["user_property"])["n"])
        await may_end[number].wait()
        done[number] += 1

    router.freeze()
    broker = KeepingBroker([message(1, 1), message(2, 2), message(3, 3)], [message(2, 1, DUP), message(3, 2, DUP)])
    async with serving(broker) as port:
        session = Session(connector(options(f"mqtt://127.0.0.1:{port}", "native 5")), "broker", router.subscriptions())
        async with running(router, session=session) as worker:
            await until(lambda: worker.ledger.in_hand == 3)
            may_end[1].set()
            await until(lambda: broker.acknowledged == [1])
            broker.cut()
            await until(lambda: worker.ledger.received == 5)
            may_end[2].set()
            await until(lambda: broker.acknowledged[1:2] == [1])
            # Message 3 still runs. A process that died now would never get it again.
            await asyncio.sleep(0.2)
            assert broker.acknowledged == [1, 1]
            may_end[3].set()
            await until(lambda: broker.acknowledged == [1, 1, 2])
    assert done == {1: 1, 2: 2, 3: 2}
