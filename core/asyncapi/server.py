"""The broker of an AsyncAPI document: its address, and the kinds of credentials that it asks for, never their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Server:
    """What the document says of the broker.

    host            host and port, such as ``broker.example:8883``
    protocol        mqtt, secure-mqtt, ws or wss
    version         "5" or "3.1.1"
    path            the path of a WebSocket, else None
    description     a sentence about the broker, or nothing
    password        whether the worker signs in with a user name and a password
    certificate     whether the worker signs in with a client certificate
    client_id       the worker's client identifier, or None to leave it out of the document
    keepalive       seconds
    session_expiry  seconds
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
        """Return the Server Object."""
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
        """Return the Security Scheme Objects by their names: the kinds of credentials that the broker asks for."""
        found: dict[str, Any] = {}
        if self.password:
            found["password"] = {"type": "userPassword", "description": "User name and password of MQTT's CONNECT."}
        if self.certificate:
            found["certificate"] = {"type": "X509", "description": "A client certificate, given in the TLS handshake."}
        return found

    def _binding(self) -> dict[str, Any]:
        """Return what the worker says in CONNECT. Only MQTT 5 has a session expiry (3.1.2.11.2)."""
        return {
            **({"clientId": self.client_id} if self.client_id is not None else {}),
            "cleanSession": False,
            "keepAlive": self.keepalive,
            **({"sessionExpiryInterval": self.session_expiry} if self.version == "5" else {}),
            "bindingVersion": "0.2.0",
        }
