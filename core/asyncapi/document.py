"""The AsyncAPI 3.0 document of an application: its routes as channels, operations and messages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.asyncapi.address import address, converters
from core.asyncapi.handler import NOTHING, UNKNOWN, docs, returned
from core.asyncapi.request import CORRELATION_DATA, ERROR, ERROR_EXAMPLE, REPLY_ADDRESS, RESPONSE_TOPIC, headers
from core.asyncapi.schemas import PREFIX, Schemas
from core.mqtt.topics import parse
from core.route import by_topic

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from core.asyncapi.server import Server
    from core.router import Router
    from core.routing.registered import Route

VERSION = "3.0.0"
BINDING = "0.2.0"
RESPONSES = "responses"
_CONTENT_TYPES = {"json": "application/json", "text": "text/plain", "raw": "application/octet-stream"}


@dataclass(frozen=True, slots=True)
class About:
    """Title, version and description of the application."""

    title: str
    version: str
    description: str = ""


def describe(router: Router, about: About, server: Server) -> dict[str, Any]:
    """Return the document for the routes of ``router``. It holds JSON values only, and is the same for the same routes."""
    return _Document(router, about, server).write()


class _Document:
    def __init__(self, router: Router, about: About, server: Server) -> None:
        self._routes = router.routes
        self._about = about
        self._server = server
        self._channels: dict[str, Any] = {}
        self._operations: dict[str, Any] = {}
        self._by_address: dict[str, str] = {}
        self._responses = ""
        self._returned = {route.name: returned(route.handler) for route in self._routes}
        self._schemas = Schemas(
            {route.name: route.options.schema for route in self._routes if route.options.schema is not None},
            {name: kind for name, kind in self._returned.items() if kind not in (NOTHING, UNKNOWN, Any, dict, list)},
        )

    def write(self) -> dict[str, Any]:
        named = [(self._operation(route), route) for route in self._routes]
        # Replies come after all routes, because a reply may go to a topic that a route takes.
        for key, route in named:
            self._reply(key, route)
        info = {"title": self._about.title, "version": self._about.version}
        if self._about.description:
            info["description"] = self._about.description
        security = self._server.security_schemes()
        components = {
            name: part for name, part in (("schemas", self._schemas.components), ("securitySchemes", security)) if part
        }
        return {
            "asyncapi": VERSION,
            "info": info,
            "defaultContentType": "application/json",
            "servers": {"broker": self._server.describe()},
            "channels": self._channels,
            "operations": self._operations,
            **({"components": components} if components else {}),
        }

    def _operation(self, route: Route) -> str:
        """Add the channel and the operation of ``route``. Return the operation's key."""
        summary, description = docs(route.handler)
        key = _key(route.options.name or route.handler_name, self._operations)
        where, parameters = address(route.pattern)
        channel = _key(where, self._channels)
        self._by_address.setdefault(where, channel)
        payload = self._schemas.incoming(route.name)
        if payload is None:
            payload = _unknown(route)
        message = _message_name(payload, key)
        self._channels[channel] = {
            "address": where,
            "description": f"Subscribed to as `{route.pattern.topic_filter}`.",
            **({"parameters": parameters} if parameters else {}),
            "messages": {
                message: {
                    "name": message,
                    **({"summary": summary} if summary else {}),
                    "contentType": _content_type(route),
                    **(self._asked() if self._answers(route) else {}),
                    **({} if payload is None else {"payload": payload}),
                    **_examples(self._schemas.incoming_examples(route.name)),
                }
            },
        }
        self._operations[key] = {
            "action": "receive",
            "channel": _to("channels", channel),
            **({"summary": summary} if summary else {}),
            **({"description": description} if description else {}),
            "messages": [_to("channels", channel, "messages", message)],
            "bindings": {"mqtt": {"qos": route.options.qos, "retain": False, "bindingVersion": BINDING}},
            **_extensions(route),
        }
        return key

    # -- replies -------------------------------------------------------------------------------------------------------

    def _on_demand(self, route: Route) -> bool:
        """Return whether ``route`` answers a message that names a response topic."""
        answers = self._returned[route.name] not in (NOTHING, UNKNOWN) or route.options.reply_errors
        return self._server.version == "5" and route.options.batch is None and answers

    def _answers(self, route: Route) -> bool:
        return route.options.reply is not None or self._on_demand(route)

    def _asked(self) -> dict[str, Any]:
        """Return the properties with which a message says where its reply goes. Only MQTT 5 has them."""
        if self._server.version != "5":
            return {}
        return headers(responseTopic=RESPONSE_TOPIC, correlationData=CORRELATION_DATA)

    def _reply(self, key: str, route: Route) -> None:
        if not self._answers(route):
            return
        reply: dict[str, Any] = {}
        if route.options.reply is not None:
            where, parameters = address(parse(route.options.reply), converters(route.pattern))
            channel = self._by_address.get(where) or _key(where, self._channels)
            if channel not in self._channels:
                self._by_address[where] = channel
                otherwise = ", unless the message names a response topic of its own" if self._server.version == "5" else ""
                self._channels[channel] = {
                    "address": where,
                    "description": f"Replies are sent here{otherwise}.",
                    **({"parameters": parameters} if parameters else {}),
                    "messages": {},
                }
        else:
            channel = self._responses = self._responses or _key(RESPONSES, self._channels)
            self._channels.setdefault(
                channel,
                {
                    "address": None,
                    "description": "The topic that a request names as its Response Topic (MQTT 5).",
                    "messages": {},
                },
            )
            reply["address"] = REPLY_ADDRESS
        reply["channel"] = _to("channels", channel)
        reply["messages"] = [
            _to("channels", channel, "messages", name) for name in self._replies(key, route, self._channels[channel])
        ]
        self._operations[key]["reply"] = reply

    def _replies(self, key: str, route: Route, channel: dict[str, Any]) -> list[str]:
        """Add the messages of the reply to ``channel``. Return their keys."""
        messages: dict[str, Any] = channel["messages"]
        added = []
        payload = self._schemas.outgoing(route.name)
        correlated = headers(correlationData=CORRELATION_DATA) if self._server.version == "5" else {}
        if self._returned[route.name] is not NOTHING:
            name = _key(f"{key}.reply", messages)
            messages[name] = {
                "name": _message_name(payload, name),
                "title": "Reply",
                "summary": f"The reply of `{key}`.",
                "contentType": _content_type(route),
                **correlated,
                **({} if payload is None else {"payload": payload}),
                **_examples(self._schemas.outgoing_examples(route.name)),
            }
            added.append(name)
        if route.options.reply_errors:
            name = _key(f"{key}.error", messages)
            messages[name] = {
                "name": name,
                "title": "Error",
                "summary": f"What `{key}` says of a message that could not be handled.",
                "contentType": _content_type(route),
                **correlated,
                "payload": ERROR,
                **_examples([ERROR_EXAMPLE]),
            }
            added.append(name)
        return added


def _extensions(route: Route) -> dict[str, Any]:
    """Return the extensions: the options of ``route`` that AsyncAPI and its MQTT bindings have no field for."""
    options = route.options
    order, dedup = options.order_by, options.dedup
    found: dict[str, Any] = {"x-routemq-handler": route.handler_name, "x-routemq-delivery": options.delivery}
    if order is None:
        found["x-routemq-order-by"] = "nothing"
    elif order is by_topic:
        found["x-routemq-order-by"] = "topic"
    else:
        found["x-routemq-order-by"] = f"{{{order}}}" if isinstance(order, str) else _name(order)
    if dedup is not None:
        found["x-routemq-dedup"] = dedup if isinstance(dedup, str) else _name(dedup)
    if isinstance(options.codec, str):
        found["x-routemq-codec"] = options.codec
    if options.batch is not None:
        found["x-routemq-batch"] = options.batch
    return found


def _name(function: Any) -> str:
    name = getattr(function, "__name__", "")
    return name if name.isidentifier() else "a function of the message"


def _content_type(route: Route) -> str:
    if route.content_type is not None:
        return route.content_type
    codec = route.options.codec
    # A codec object of the user may write anything, so that nothing but bytes is known.
    return _CONTENT_TYPES.get(codec, "application/octet-stream") if isinstance(codec, str) else "application/octet-stream"


def _unknown(route: Route) -> dict[str, Any] | None:
    """Return the schema of a payload whose route has none, as far as its codec tells it. Return None if it does not."""
    if route.options.codec == "text":
        return {"type": "string"}
    if route.options.codec == "raw":
        return {"type": "string", "format": "binary"}
    return None


def _message_name(payload: Mapping[str, Any] | None, otherwise: str) -> str:
    """Return the name of the model that the payload is, or ``otherwise`` if it is none."""
    reference = str((payload or {}).get("$ref", ""))
    return reference.removeprefix(PREFIX) if reference else otherwise


def _examples(values: list[Any]) -> dict[str, Any]:
    return {"examples": [{"payload": value} for value in values]} if values else {}


def _to(*path: str) -> dict[str, str]:
    return {"$ref": "#/" + "/".join(path)}


def _key(text: str, taken: Container[str]) -> str:
    """Return a key made of ``text`` that is not taken. It has only letters, digits and ``. - _``, which need no escapes."""
    key = re.sub(r"[^A-Za-z0-9.\-_]+", "_", re.sub(r"[{}<>]", "", text).replace("/", ".")).strip("._") or "topic"
    free, number = key, 2
    while free in taken:
        free, number = f"{key}_{number}", number + 1
    return free
