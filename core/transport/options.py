"""How to connect to a broker: one value with all options."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from core.errors import SettingsError, mask
from core.mqtt.publication import Publication

if TYPE_CHECKING:
    from pathlib import Path

PORTS = {"unix": 0, "mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443, "embedded": 1883}


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """What CONNECT and the network connection need.

    - ``scheme``: one of PORTS.
    - ``host``, ``port``: the broker's address.
    - ``path``: the path of a WebSocket, or the file of a Unix socket.
    - ``username``, ``password``: what the broker lets in by.
    - ``client_id``: the client identifier, which names the session.
    - ``version``: "5" or "3.1.1". "5" falls back to 3.1.1 where the broker does not speak MQTT 5.
    - ``clean_start``: whether a new session begins (MQTT 5, 3.1.2.4).
    - ``session_expiry``: seconds that the broker keeps the session after the connection has ended (MQTT 5, 3.1.2.11.2).
    - ``keepalive``: seconds between two packets at the most (MQTT 5, 3.1.2.10).
    - ``receive_maximum``: how many messages the broker may send unacknowledged (MQTT 5, 3.1.2.11.3).
    - ``maximum_packet_size``: bytes of the largest packet that is read whole (MQTT 5, 3.1.2.11.4).
    - ``ca_file``: the authorities to trust, in PEM. Without it, the system's are trusted.
    - ``cert_file``, ``key_file``, ``key_password``: the client's certificate and key, in PEM.
    - ``tls_verify``: whether the broker's certificate is checked.
    - ``connect_timeout``: seconds for the network connection and CONNACK together.
    - ``transport``: "auto", "native" or "aiomqtt".
    - ``will``: what the broker publishes when the connection breaks (MQTT 5, 3.1.2.5).
    """

    scheme: str
    host: str
    port: int
    path: str = "/mqtt"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    client_id: str = ""
    version: str = "5"
    clean_start: bool = False
    session_expiry: int = 86_400
    keepalive: int = 60
    receive_maximum: int = 1000
    maximum_packet_size: int = 268_435_455
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    key_password: str | None = field(default=None, repr=False)
    tls_verify: bool = True
    connect_timeout: float = 10
    transport: str = "auto"
    will: Publication | None = None

    @property
    def tls(self) -> bool:
        """Return whether the connection is encrypted."""
        return self.scheme in {"mqtts", "wss"}

    @property
    def websocket(self) -> bool:
        """Return whether MQTT is carried by WebSocket."""
        return self.scheme in {"ws", "wss"}

    @property
    def address(self) -> str:
        """Return the broker's address for people, without credentials."""
        if self.scheme == "unix":
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "mqtt" if self.scheme == "embedded" else self.scheme
        return f"{scheme}://{host}:{self.port}" + (self.path if self.websocket else "")


def largest_packet(body: int) -> int:
    """Return the bytes of the largest packet that is read whole, where bodies of ``body`` bytes are accepted.

    A broker drops what is larger without a word (MQTT 5, 3.1.2.11.4). So there is room for bodies that are too large as
    well, which become dead letters.
    """
    return min(2 * body + 131_072, 268_435_455)


def parse_url(url: str) -> ConnectOptions:
    """Return the options that an MQTT_URL holds. Its credentials are percent-encoded. Raise SettingsError."""
    shown = mask(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # What urlsplit says of it may repeat a part of the password.
        raise SettingsError(
            f"MQTT_URL={shown}: host or port cannot be read. Ports are 1 to 65535. Percent-encode special characters of "
            "user and password. Write for instance mqtt://user:pass@host:1883"
        ) from None
    if parts.scheme not in PORTS:
        raise SettingsError(
            f"MQTT_URL={shown}: the scheme {parts.scheme!r} is none of {', '.join(PORTS)}. Write for instance "
            "mqtt://user:pass@host:1883"
        )
    if parts.scheme == "unix":
        if parts.netloc or not parts.path.startswith("/") or parts.query or parts.fragment:
            raise SettingsError(
                f"MQTT_URL={shown} is not a socket's absolute path. Write for instance unix:///run/mosquitto.sock"
            )
        return ConnectOptions(scheme="unix", host="localhost", port=0, path=unquote(parts.path))
    if not parts.hostname:
        raise SettingsError(f"MQTT_URL={shown} names no host. Write for instance mqtt://user:pass@host:1883")
    if parts.query or parts.fragment or (parts.path.strip("/") and parts.scheme not in {"ws", "wss"}):
        raise SettingsError(
            f"MQTT_URL={shown}: nothing may stand behind host and port, except a path with ws and wss. Percent-encode "
            "special characters of user and password"
        )
    if port == 0:
        raise SettingsError(f"MQTT_URL={shown}: port 0 cannot be used. Ports are 1 to 65535")
    return ConnectOptions(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port or PORTS[parts.scheme],
        path=parts.path or "/mqtt",
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )
