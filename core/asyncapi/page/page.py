"""The AsyncAPI document as one HTML page for people, which loads nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from core.asyncapi.page.environment import ENVIRONMENT, FOLDER
from core.asyncapi.page.operation import Operation, operation_of
from core.asyncapi.page.prose import prose
from core.asyncapi.page.references import References
from core.asyncapi.page.schema import model_of
from core.asyncapi.page.words import Fact, code, inline, plain

_CREDENTIALS = {"userPassword": "a user name and a password", "X509": "a client certificate"}
_PROTOCOLS = {
    "mqtt": "MQTT over TCP",
    "secure-mqtt": "MQTT over TLS",
    "ws": "MQTT over WebSocket",
    "wss": "MQTT over WebSocket and TLS",
}


def page(document: dict[str, Any]) -> str:
    """Return the page of ``document``, as ``describe`` makes it. Only its own style and script may run in it."""
    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    references = References(document)
    info = document["info"]
    operations = [operation_of(key, one, references) for key, one in document["operations"].items()]
    return ENVIRONMENT.get_template("page.html").render(
        policy=f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none'",
        style=style,
        script=script,
        title=info["title"],
        version=info["version"],
        description=prose(info.get("description") or ""),
        servers=[_server(one, references) for one in document["servers"].values()],
        groups=_groups(operations),
        operations=operations,
        models=[model_of(name, schema, references) for name, schema in references.models.items()],
        asyncapi=document["asyncapi"],
    )


def _groups(operations: list[Operation]) -> dict[str, list[Operation]]:
    """Return the operations by the first level of their topics."""
    groups: dict[str, list[Operation]] = {}
    for operation in operations:
        groups.setdefault(operation.address.partition("/")[0], []).append(operation)
    return groups


def _server(server: dict[str, Any], references: References) -> list[Fact]:
    protocol = f"{_PROTOCOLS.get(server['protocol'], server['protocol'])}, version {server['protocolVersion']}"
    facts = [Fact("Broker", code(server["host"] + server.get("pathname", ""))), Fact("Protocol", plain(protocol))]
    wanted = [references.at(one)["type"] for one in server.get("security", ())]
    if wanted:
        facts.append(Fact("Sign in with", plain(" and ".join(_CREDENTIALS.get(one, one) for one in wanted))))
    if server.get("description"):
        facts.append(Fact("About it", inline(server["description"])))
    return facts


def _digest(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
