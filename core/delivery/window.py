"""The bound on what is in hand. Beyond it, the socket is not read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from core.delivery.acknowledge import Acknowledgements
    from core.delivery.ledger import Ledger

MAX_BYTES = 64 * 1024 * 1024
"""Bytes of bodies in hand. Beyond that the socket is not read, however few the messages are."""


class Reading(Protocol):
    """A session, which can stop reading its socket and read it again."""

    def pause_reading(self) -> None:
        """Stop reading, also on later connections."""

    def resume_reading(self) -> None:
        """Read again."""


class Window:
    """Pauses reading while too much is in hand.

    Too much is one of:

    - more than ``limit`` messages in hand;
    - more than 64 MiB of bodies in hand;
    - more than ``limit`` messages that wait for their acknowledgement behind a slow one.

    It also pauses reading while it is blocked by the record of packets.

    Reading is resumed once there is room for an eighth of the messages, and for half of the bytes. One read of the socket
    may bring more messages than there is room for.

    - ``ledger``: knows how many messages are in hand.
    - ``acknowledgements``: knows how many messages wait for their acknowledgement.
    - ``reading``: the session that is paused.
    - ``limit``: a number of messages.
    """

    def __init__(self, ledger: Ledger, acknowledgements: Acknowledgements, reading: Reading, limit: int) -> None:
        self._ledger = ledger
        self._acknowledgements = acknowledgements
        self._reading = reading
        self._limit = limit
        self._low = limit - max(limit // 8, 1)
        self._bytes = 0
        self._closed = False
        self._blocked = False
        self.paused = False

    def take(self, size: int) -> None:
        """Count a message of ``size`` bytes that came in. Pause reading if that was too much."""
        self._bytes += size
        if not self.crowded:
            return
        if self._ledger.in_hand > self._limit or self._bytes > MAX_BYTES or len(self._acknowledgements) > self._limit:
            self._pause()

    @property
    def crowded(self) -> bool:
        """Whether so much is in hand that others may wait for room, be it with the broker (MQTT 5, Receive Maximum)."""
        low = self._low
        return self._ledger.in_hand > low or len(self._acknowledgements) > low or self._bytes > MAX_BYTES // 2

    def release(self, size: int) -> None:
        """Take a message of ``size`` bytes off the count, because it has its end."""
        self._bytes -= size

    def resume(self) -> None:
        """Resume reading if it is paused and there is room again."""
        enough = self._ledger.in_hand <= self._low and len(self._acknowledgements) <= self._low
        if self.paused and enough and self._bytes <= MAX_BYTES // 2 and not self._closed and not self._blocked:
            self.paused = False
            self._reading.resume_reading()

    def block(self) -> None:
        """Pause reading until ``unblock`` is called."""
        self._blocked = True
        self._pause()

    def unblock(self) -> None:
        """Resume reading, unless there is another reason for the pause."""
        self._blocked = False
        self.resume()

    def close(self) -> None:
        """Pause reading for good."""
        self._closed = True
        self._pause()

    def _pause(self) -> None:
        if not self.paused:
            self.paused = True
            self._reading.pause_reading()
