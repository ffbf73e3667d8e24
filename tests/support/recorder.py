"""A listener that remembers what it was told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.mqtt.message import Message
    from core.transport.connection import Connack


class Recorder:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.connacks: list[Connack] = []
        self.losses = 0

    async def connecting(self) -> None:
        """Do nothing."""

    async def subscribing(self) -> None:
        """Do nothing."""

    def receive(self, message: Message) -> None:
        self.messages.append(message)

    def connected(self, connack: Connack) -> None:
        self.connacks.append(connack)

    def disconnected(self) -> None:
        self.losses += 1

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message in self.messages]
