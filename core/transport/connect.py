"""Which transport carries a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.errors import SettingsError

if TYPE_CHECKING:
    from core.transport.connection import Connect, Connection, Listener
    from core.transport.options import ConnectOptions


def connector(options: ConnectOptions) -> Connect:
    """Give what makes connections with ``options``; what it learns of the broker's version it keeps for the next one.

    "auto" takes the native transport for MQTT 5 over TCP, TLS and Unix sockets, and aiomqtt for everything else. Raises
    SettingsError where "native" is asked for what it cannot do.
    """
    # Neither is loaded where memory is enough.
    from core.transport.aiomqtt.connection import AiomqttConnection, Version  # noqa: PLC0415

    version = Version(options.version)
    able = options.version == "5" and not options.websocket
    if options.transport == "native" and not able:
        raise SettingsError(
            "MQTT_TRANSPORT=native speaks MQTT 5 over TCP, TLS and Unix sockets (mqtt://, mqtts://, unix://); write "
            "MQTT_TRANSPORT=auto"
        )
    if options.scheme == "unix" and (not able or options.transport == "aiomqtt"):
        raise SettingsError("MQTT_URL=unix://... needs MQTT_VERSION=5 and MQTT_TRANSPORT=auto or native")
    if options.transport == "native" or options.scheme == "unix":
        from core.transport.native.connection import NativeConnection  # noqa: PLC0415

        return lambda listener, number: NativeConnection(options, listener, number)
    if options.transport == "auto" and able:
        from core.transport.fallback import FallbackConnection  # noqa: PLC0415

        return lambda listener, number: FallbackConnection(options, version, listener, number)

    def connect(listener: Listener, number: int) -> Connection:
        return AiomqttConnection(options, version, listener, number)

    return connect
