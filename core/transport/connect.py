"""Which transport carries a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.transport.base import Connect, Connection, Listener
    from core.transport.options import ConnectOptions


def connector(options: ConnectOptions) -> Connect:
    """Give what makes connections with ``options``; what it learns of the broker's version it keeps for the next one."""
    from core.transport.aiomqtt import AiomqttConnection, Version  # noqa: PLC0415 - not loaded where memory is enough

    version = Version(options.version)

    def connect(listener: Listener, number: int) -> Connection:
        return AiomqttConnection(options, version, listener, number)

    return connect
