"""The network: connections of bytes, which come late, in pieces, or not at all."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.world.loop import VirtualLoop, World

SPLIT = 0.1
"""How many of the writes arrive in two pieces."""


class _Way:
    """The bytes of one direction, in order. ``left`` is how many still pass before the connection is cut."""

    def __init__(self, link: Link, arrived: Callable[[bytes], None]) -> None:
        self._link = link
        self._arrived = arrived
        self._last = 0.0
        self.left: int | None = None

    def send(self, data: bytes) -> None:
        link, world = self._link, self._link.world
        if link.broken:
            return
        when = max(self._last, world.now + link.latency, link.network.silent_until)
        if len(data) > 1 and link.splits and world.random.random() < SPLIT:
            half = world.random.randrange(1, len(data))
            world.at(when, self._arrive, data[:half])
            when += 0.001
            data = data[half:]
        self._last = when
        world.at(when, self._arrive, data)

    def finish(self, call: Callable[[], None]) -> None:
        """Call ``call`` once everything sent has arrived."""
        self._link.world.at(max(self._last, self._link.world.now + self._link.latency), call)

    def _arrive(self, data: bytes) -> None:
        link = self._link
        if link.broken:
            return
        if self.left is not None:
            data = data[: self.left]
            self.left -= len(data)
        if data:
            self._arrived(data)
        if self.left == 0:
            link.cut("the connection is cut")


class Link(asyncio.Transport):
    """One connection of a process to the broker: the process's transport, with the broker at its other end.

    The broker sets ``received`` and ``ended``.
    """

    def __init__(self, network: Network, loop: VirtualLoop, protocol: Any) -> None:
        super().__init__()
        self.network = network
        self.world: World = network.world
        self.loop = loop
        self.protocol = protocol
        self.latency = network.latency
        self.splits = network.splits
        self.broken = False
        self.received: Callable[[bytes], None] = lambda data: None
        self.ended: Callable[[], None] = lambda: None
        self.up = _Way(self, self._reached)
        self.down = _Way(self, self._came)
        self._context = copy_context()
        self._paused = False
        self._closing = False
        self._lost = False
        self._unread = bytearray()

    # -- the process's end ---------------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        """Send ``data`` to the broker."""
        if not self._closing and not self.loop.dead:
            self.up.send(bytes(data))

    def is_closing(self) -> bool:
        """Return whether the process has closed its end."""
        return self._closing

    def pause_reading(self) -> None:
        """Keep what comes."""
        self._paused = True

    def resume_reading(self) -> None:
        """Hand on what was kept."""
        self._paused = False
        if self._unread and not self._lost:
            self.loop.call_soon(self._feed, context=self._context)

    def close(self) -> None:
        """Close once everything sent has arrived."""
        if not self._closing:
            self._closing = True
            self.up.finish(self._end_of_process)
            self._lose(None)

    def abort(self) -> None:
        """Close at once. What is under way may arrive, or not."""
        self.close()

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            if not self.loop.is_closed():
                self.loop.call_soon(self.protocol.connection_lost, error, context=self._context)

    def _end_of_process(self) -> None:
        if not self.broken:
            self.broken = True
            self.network.forget(self)
            self.ended()

    def _reached(self, data: bytes) -> None:
        self.received(data)

    def _came(self, data: bytes) -> None:
        if self._lost or self.loop.dead:
            return
        self._unread += data
        if not self._paused:
            self.loop.call_soon(self._feed, context=self._context)

    def _feed(self) -> None:
        while self._unread and not self._paused and not self._lost:
            view = self.protocol.get_buffer(-1)
            size = min(len(view), len(self._unread))
            view[:size] = self._unread[:size]
            del self._unread[:size]
            self.protocol.buffer_updated(size)

    # -- the broker's end, and the wire between ------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send ``data`` to the process."""
        self.down.send(data)

    def hang_up(self) -> None:
        """Close the broker's end once everything sent has arrived."""
        self.down.finish(lambda: self.cut(None))

    def cut(self, why: str | None) -> None:
        """Break the connection. Both ends hear of it, and what was under way is gone."""
        if self.broken:
            return
        self.broken = True
        self.network.forget(self)
        if why is not None:
            self.world.tell("network", why)
        if not self.loop.dead:
            self._lose(ConnectionResetError(104, "Connection reset by peer") if why is not None else None)
        self.world.after(self.latency, self.ended)


class Network:
    """All connections. ``accept`` is the broker's, called with each new one.

    - ``is_up``: whether somebody listens.
    - ``silent_until``: until when nothing arrives.
    """

    def __init__(self, world: World, latency: float, *, splits: bool) -> None:
        self.world = world
        self.latency = latency
        self.splits = splits
        self.is_up = True
        self.silent_until = 0.0
        self.links: list[Link] = []
        self.accept: Callable[[Link], None] = lambda link: None

    async def connect(self, loop: VirtualLoop, factory: Callable[[], Any]) -> tuple[Link, Any]:
        """Connect a process to the broker. Raise ConnectionRefusedError where nobody listens."""
        await asyncio.sleep(max(2 * self.latency, self.silent_until - self.world.now))
        if loop.dead or not self.is_up:
            raise ConnectionRefusedError(111, "Connection refused")
        protocol = factory()
        link = Link(self, loop, protocol)
        self.links.append(link)
        self.accept(link)
        protocol.connection_made(link)
        return link, protocol

    def forget(self, link: Link) -> None:
        """Take ``link`` off the list of those that stand."""
        if link in self.links:
            self.links.remove(link)

    def cut_all(self, why: str, loop: VirtualLoop | None = None) -> None:
        """Cut all connections, or those of one process."""
        for link in [link for link in self.links if loop is None or link.loop is loop]:
            link.cut(why)
