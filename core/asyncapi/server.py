"""The broker of an AsyncAPI document: where it is and what a client has to bring, never the secrets themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Server:
    """What is said of the broker.

    ``host`` is with its port, as ``broker.example:8883``. ``protocol`` is mqtt, secure-mqtt, ws or wss, ``path`` that of a
    WebSocket. ``version`` is "5" or "3.1.1". ``password`` and ``certificate`` say whether the worker signs in with one.
    ``client_id`` is the worker's own, None where it is not to be shown. Times are in seconds.
    """

    host: str
    protocol: str = "mqtt"
    version: str = "5"
    path: str | None = None
    description: str = ""
    password: bool = False
    certificate: bool = False
    client_id: str | None = None
    keepalive: int = 60
    session_expiry: int = 86_400

    def describe(self) -> dict[str, Any]:
        """Give the Server Object."""
        schemes = self.security_schemes()
        security = {"security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in schemes]} if schemes else {}
        return {
            "host": self.host,
            "protocol": self.protocol,
            "protocolVersion": self.version,
            **({"pathname": self.path} if self.path else {}),
            **({"description": self.description} if self.description else {}),
            **security,
            "bindings": {"mqtt": self._binding()},
        }

    def security_schemes(self) -> dict[str, Any]:
        """Give the Security Scheme Objects, by name: what kinds of credentials are wanted."""
        found: dict[str, Any] = {}
        if self.password:
            found["password"] = {"type": "userPassword", "description": "User name and password of MQTT's CONNECT."}
        if self.certificate:
            found["certificate"] = {"type": "X509", "description": "A client certificate, given in the TLS handshake."}
        return found

    def _binding(self) -> dict[str, Any]:
        """Give what the worker says in CONNECT; only MQTT 5 has a session expiry (3.1.2.11.2)."""
        return {
            **({"clientId": self.client_id} if self.client_id is not None else {}),
            "cleanSession": False,
            "keepAlive": self.keepalive,
            **({"sessionExpiryInterval": self.session_expiry} if self.version == "5" else {}),
            "bindingVersion": "0.2.0",
        }
