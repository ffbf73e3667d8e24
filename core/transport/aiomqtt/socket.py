"""The socket of a paho client on an asyncio event loop: reading, writing and keep-alive."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from paho.mqtt.client import MQTT_ERR_SUCCESS

from core.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from paho.mqtt.client import Client as PahoClient

MAX_READ = 100
"""Packets read in one turn of the event loop, so that handlers get their turn."""


class PahoSocket:
    """The socket of a paho client: it moves bytes between ``paho`` and the network.

    - ``paho``: the client.
    - ``keepalive``: seconds of the keep-alive.
    - ``websocket``: whether WebSocket carries the connection.
    - ``failed``: called with the reason why the connection cannot go on, once or more.

    It is made on the event loop, before ``paho`` connects in a thread of its own. Whoever hears of a packet calls
    ``went_on``: paho does not say of a read how many bytes or packets it brought.
    """

    def __init__(self, paho: PahoClient, *, keepalive: int, websocket: bool, failed: Callable[[str], None]) -> None:
        self._paho = paho
        self._interval = min(1.0, keepalive / 4)
        self._websocket = websocket
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._socket: Any = None
        self._keep_alive: asyncio.Task[None] | None = None
        self._paused = False
        self._progress = False
        self._released = False
        paho.on_socket_open = self._on_open
        paho.on_socket_close = self._on_close
        paho.on_socket_register_write = self._on_register_write
        paho.on_socket_unregister_write = self._on_unregister_write

    def went_on(self) -> None:
        """Record that the read under way brought a packet."""
        self._progress = True

    # -- paho's callbacks ----------------------------------------------------------------------------------------------

    def _on_open(self, paho: PahoClient, userdata: object, sock: Any) -> None:
        """Begin to read the socket. Called in the thread that connects."""
        self._loop.call_soon_threadsafe(self._begin, sock)

    def _begin(self, sock: Any) -> None:
        if sock.fileno() < 0:
            return
        self._socket = sock
        self._loop.add_reader(sock.fileno(), self._read)
        self._keep_alive = asyncio.create_task(self._keep_connection_alive(), name="mqtt keep alive")

    def _on_close(self, paho: PahoClient, userdata: object, sock: Any) -> None:
        self._loop.remove_reader(sock.fileno())

    def _on_register_write(self, paho: PahoClient, userdata: object, sock: Any) -> None:
        self._on_loop(self._write_when_possible, sock)

    def _on_unregister_write(self, paho: PahoClient, userdata: object, sock: Any) -> None:
        self._on_loop(self._write_no_more, sock)

    def _on_loop(self, call: Callable[[Any], None], sock: Any) -> None:
        """Make the call on the event loop's thread: at once there, and soon from the thread that connects."""
        if threading.get_ident() == self._thread:
            call(sock)
        else:
            self._loop.call_soon_threadsafe(call, sock)

    # -- writing -------------------------------------------------------------------------------------------------------

    def _write_when_possible(self, sock: Any) -> None:
        # It may be closed by the time this runs.
        if sock.fileno() >= 0:
            self._loop.add_writer(sock.fileno(), self._write)

    def _write_no_more(self, sock: Any) -> None:
        if sock.fileno() >= 0:
            self._loop.remove_writer(sock.fileno())

    def _write(self) -> None:
        try:
            self._paho.loop_write()
        except Exception as error:  # noqa: BLE001 - whatever paho lets through of a broken socket
            self._failed(f"the connection broke: {one_line(error)}")

    # -- reading -------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Read packets until a read brings none.

        paho reads one packet at a time, and may hold more than the socket shows.
        """
        try:
            for _ in range(MAX_READ):
                self._progress = False
                self._paho.loop_read()
                if self._paused or not (self._progress or self._holds_more()):
                    return
        except Exception as error:  # noqa: BLE001 - whatever a malformed packet makes paho raise ends this connection only
            self._failed(f"a packet could not be read: {one_line(error)}")
            return
        # More may be decoded already, which the socket will not show (TLS, WebSocket).
        self._loop.call_soon(self._read_on)

    def _holds_more(self) -> bool:
        """Return whether TLS has decoded bytes that were not read yet. A read of a WebSocket takes one frame at most."""
        pending = getattr(self._socket, "pending", None)
        return pending is not None and self._socket.fileno() >= 0 and pending() > 0

    def _read_on(self) -> None:
        if not self._paused and not self._released:
            self._read()

    async def _keep_connection_alive(self) -> None:
        paho = self._paho
        while True:
            await asyncio.sleep(self._interval)
            if self._paused:
                # PINGREQ is still sent, but its answer cannot be read now. paho has no public way not to wait for it.
                paho._ping_t = 0.0  # noqa: SLF001
            elif self._websocket:
                self._read_on()
            if paho.loop_misc() != MQTT_ERR_SUCCESS:
                self._failed("the connection broke")
                return

    def pause_reading(self) -> None:
        """Remove the socket from the event loop's readers."""
        if not self._paused and self._socket is not None:
            self._paused = True
            if self._socket.fileno() >= 0:
                self._loop.remove_reader(self._socket.fileno())

    def resume_reading(self) -> None:
        """Add the socket to the event loop's readers again."""
        if self._paused:
            self._paused = False
            if self._socket is not None and self._socket.fileno() >= 0:
                self._loop.add_reader(self._socket.fileno(), self._read)
                self._loop.call_soon(self._read_on)

    # -- the end -------------------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Close the socket, in whatever state it is."""
        self._released = True
        if self._keep_alive is not None:
            self._keep_alive.cancel()
            self._keep_alive = None
        sock, self._socket = self._socket or self._paho.socket(), None
        if sock is not None and sock.fileno() >= 0:
            self._loop.remove_reader(sock.fileno())
            self._loop.remove_writer(sock.fileno())
            sock.close()
