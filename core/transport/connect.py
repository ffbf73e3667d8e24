"""Which transport carries a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.errors import SettingsError

if TYPE_CHECKING:
    from core.transport.connection import Connect
    from core.transport.fallback import Transport
    from core.transport.options import ConnectOptions


def connector(options: ConnectOptions) -> Connect:
    """Return what makes connections with ``options``. The broker's version, once found, is kept for the next connection.

    "auto" takes the native transport for MQTT 5 over TCP, TLS and Unix sockets, and aiomqtt for everything else. Raise
    SettingsError where "native" is asked for something that it cannot do.
    """
    able = options.version == "5" and not options.websocket
    if options.transport == "native" and not able:
        raise SettingsError(
            "MQTT_TRANSPORT=native speaks MQTT 5 over TCP, TLS and Unix sockets only (mqtt://, mqtts://, unix://). Write "
            "MQTT_TRANSPORT=auto"
        )
    if options.scheme == "unix" and (not able or options.transport == "aiomqtt"):
        raise SettingsError("MQTT_URL=unix://... needs MQTT_VERSION=5 and MQTT_TRANSPORT=auto or native")
    transport = _native() if able and options.transport != "aiomqtt" else _aiomqtt()
    if options.version == "5" and options.transport != "native" and options.scheme != "unix":
        from core.transport.fallback import FallbackConnection, SpokenVersion  # noqa: PLC0415 - see below

        spoken = SpokenVersion()
        return lambda listener, number: FallbackConnection(options, spoken, transport, listener, number)
    return lambda listener, number: transport(options, listener, number)


# A library is loaded where its transport is used. Tests of applications need none.


def _native() -> Transport:
    from core.transport.native.connection import NativeConnection  # noqa: PLC0415

    return NativeConnection


def _aiomqtt() -> Transport:
    from core.transport.aiomqtt.connection import AiomqttConnection  # noqa: PLC0415

    return AiomqttConnection
