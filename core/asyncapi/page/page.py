"""The AsyncAPI document as one HTML page for people: nothing is loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from core.asyncapi.page.guarantee import delivery, order
from core.asyncapi.page.html import Markup, inline, join, prose, tag
from core.asyncapi.page.table import fields, kind, limits, resolve

_CREDENTIALS = {"userPassword": "a user name and a password", "X509": "a client certificate"}
_PROTOCOLS = {
    "mqtt": "MQTT over TCP",
    "secure-mqtt": "MQTT over TLS",
    "ws": "MQTT over WebSocket",
    "wss": "MQTT over WebSocket and TLS",
}
_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d[\d.eE+-]*|\b(?:true|false|null)\b)')


def page(document: dict[str, Any]) -> str:
    """Give the page of ``document``, as ``describe`` makes it. Its own style and script alone may run in it."""
    style, script = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none'"
    info = document["info"]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("title", f"{info['title']} {info['version']}"),
        tag("style", Markup(style)),
    )
    shown = _Page(document)
    body = tag("body", shown.navigation(), shown.main(), tag("script", Markup(script)))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


class _Page:
    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._schemas: dict[str, Any] = document.get("components", {}).get("schemas", {})

    # -- the frame -----------------------------------------------------------------------------------------------------

    def navigation(self) -> Markup:
        info = self._document["info"]
        groups: dict[str, list[Markup]] = {}
        for key, operation in self._document["operations"].items():
            where = self._at(operation["channel"])["address"]
            link = tag(
                "a", _topic(where), href=f"#op-{key}", data_search=_search(where, operation, key), title=_title(operation)
            )
            groups.setdefault(where.partition("/")[0], []).append(tag("li", link))
        # A heading over a single channel would only repeat it.
        lists = [
            tag("section", tag("h2", name), tag("ul", *links))
            if len(links) > 1
            else tag("section", tag("ul", *links), class_="alone")
            for name, links in groups.items()
        ]
        if self._schemas:
            links = [
                tag("li", tag("a", name, href=f"#schema-{name}", data_search=name.lower(), class_="plain"))
                for name in self._schemas
            ]
            lists.append(tag("section", tag("h2", "Schemas"), tag("ul", *links)))
        return tag(
            "nav",
            tag("header", tag("a", info["title"], href="#top", class_="title"), tag("small", info["version"])),
            tag("input", type="checkbox", id="menu", aria_label="Show the channels"),
            tag("label", "Channels", for_="menu"),
            tag("div", _search_box(), *lists, tag("p", "Nothing matches.", id="none", hidden=True), class_="lists"),
        )

    def main(self) -> Markup:
        info = self._document["info"]
        title = tag("h1", info["title"], " ", tag("small", info["version"]))
        words = [prose(info["description"])] if info.get("description") else []
        servers = [self._server(server) for server in self._document["servers"].values()]
        operations = [self._operation(key, one) for key, one in self._document["operations"].items()]
        models = [self._model(name, schema) for name, schema in self._schemas.items()]
        return tag(
            "main",
            tag("header", title, *words, *servers, id="top"),
            *operations,
            *([tag("h2", "Schemas", class_="part"), *models] if models else []),
            tag("footer", f"AsyncAPI {self._document['asyncapi']}, written by RouteMQ."),
        )

    def _server(self, server: dict[str, Any]) -> Markup:
        protocol = f"{_PROTOCOLS.get(server['protocol'], server['protocol'])}, version {server['protocolVersion']}"
        facts = [("Broker", tag("code", server["host"] + server.get("pathname", ""))), ("Protocol", protocol)]
        wanted = [self._at(one)["type"] for one in server.get("security", ())]
        if wanted:
            facts.append(("Sign in with", " and ".join(_CREDENTIALS.get(one, one) for one in wanted)))
        if server.get("description"):
            facts.append(("About it", inline(server["description"])))
        return _facts(facts)

    # -- one operation -------------------------------------------------------------------------------------------------

    def _operation(self, key: str, operation: dict[str, Any]) -> Markup:
        channel = self._at(operation["channel"])
        messages = [self._at(one) for one in operation["messages"]]
        left = [
            tag("h2", tag("a", _topic(channel["address"]), href=f"#op-{key}")),
            *([tag("p", inline(operation["summary"]), class_="lead")] if operation.get("summary") else []),
            *([prose(operation["description"])] if operation.get("description") else []),
            self._chips(operation, messages),
            self._parameters(channel),
            *(self._payload("Payload", message) for message in messages),
            self._guarantee(operation, channel),
        ]
        topic = _filled(channel)
        right = [_example("Publish to", topic, message) for message in messages]
        reply = operation.get("reply")
        parts = [tag("div", tag("div", *left, class_="text"), tag("aside", *right), class_="columns")]
        if reply is not None:
            parts.append(self._reply(reply))
        search = _search(channel["address"], operation, key)
        return tag("section", *parts, id=f"op-{key}", class_="operation", data_search=search)

    def _chips(self, operation: dict[str, Any], messages: list[dict[str, Any]]) -> Markup:
        name, _ = delivery(operation)
        chips = [f"QoS {operation['bindings']['mqtt']['qos']}", name]
        if "x-routemq-batch" in operation:
            chips.append(f"handled in lists of up to {operation['x-routemq-batch']:,}")
        chips += dict.fromkeys(message["contentType"] for message in messages)
        return tag("p", *(tag("span", chip, class_="chip") for chip in chips), class_="chips")

    def _parameters(self, channel: dict[str, Any]) -> Markup:
        rows = [
            tag(
                "tr",
                tag("td", tag("code", name, class_="field")),
                tag("td", parameter["x-routemq-converter"], class_="type"),
                tag("td", tag("p", inline(parameter["description"]))),
            )
            for name, parameter in channel.get("parameters", {}).items()
        ]
        if not rows:
            return Markup("")
        head = tag("tr", *(tag("th", title, scope="col") for title in ("Parameter", "Type", "Description")))
        table = tag("table", tag("thead", head), tag("tbody", *rows))
        return join([tag("h3", "Topic parameters"), tag("div", table, class_="scroll")])

    def _payload(self, title: str, message: dict[str, Any]) -> Markup:
        heading = tag("h3", title)
        if "payload" not in message:
            return join([heading, tag("p", f"Any {message['contentType']}: it has no schema.", class_="quiet")])
        return join([heading, self._schema(message["payload"])])

    def _schema(self, schema: Any) -> Markup:
        """Give type, limits and fields; of alternatives each with its own."""
        whole = resolve(schema, self._schemas)
        options = [option for name in ("oneOf", "anyOf") for option in whole.get(name, ())]
        said = [tag("span", one, class_="limit") for one in limits(schema, self._schemas)]
        parts = [tag("p", kind(schema), " ", *said, class_="kind")]
        if whole.get("description"):
            parts.append(prose(str(whole["description"])))
        if "x-routemq-discriminator" in whole:
            parts.append(tag("p", "Told apart by ", tag("code", whole["x-routemq-discriminator"]), ".", class_="quiet"))
        for option in options:
            table = fields(option, self._schemas)
            if table:
                parts += [tag("h4", kind(option)), table]
        table = fields(schema, self._schemas) or fields(whole.get("items"), self._schemas)
        return join([*parts, table])

    def _guarantee(self, operation: dict[str, Any], channel: dict[str, Any]) -> Markup:
        facts: list[tuple[str, str]] = [delivery(operation), ("Order", order(operation))]
        if "x-routemq-dedup" in operation:
            dedup = tag("code", operation["x-routemq-dedup"])
            facts.append(("Repeats", join(["Of messages with the same key (", dedup, ") only the first is handled."])))
        if "x-routemq-codec" in operation:
            facts.append(("Codec", tag("code", operation["x-routemq-codec"])))
        facts.append(("Channel", inline(channel["description"])))
        facts.append(("Handler", tag("code", operation["x-routemq-handler"])))
        return join([tag("h3", "Delivery"), _facts(facts)])

    def _reply(self, reply: dict[str, Any]) -> Markup:
        channel = self._at(reply["channel"])
        where = channel["address"]
        if where is None:
            to = tag("p", inline(reply["address"]["description"]), class_="lead")
        else:
            to = join([tag("p", tag("code", _topic(where), class_="topic")), tag("p", inline(channel["description"]))])
        messages = [self._at(one) for one in reply["messages"]]
        several = len(messages) > 1
        payloads = [self._payload(one["title"] if several else "Payload", one) for one in messages]
        left = [tag("h3", "Reply"), to, *payloads]
        topic = "" if where is None else _filled(channel)
        right = [_example("Answered on" if topic else "Answered", topic, message) for message in messages]
        return tag("div", tag("div", *left, class_="text"), tag("aside", *right), class_="columns reply")

    def _model(self, name: str, schema: dict[str, Any]) -> Markup:
        said = [tag("span", one, class_="limit") for one in limits(schema, self._schemas)]
        words = [prose(str(schema["description"]))] if schema.get("description") else []
        return tag(
            "section",
            tag("h3", tag("a", name, href=f"#schema-{name}")),
            *words,
            *([tag("p", *said)] if said else []),
            fields(schema, self._schemas),
            id=f"schema-{name}",
            class_="model",
            data_search=name.lower(),
        )

    def _at(self, reference: dict[str, str]) -> Any:
        """Give what a reference within the document leads to; its keys need no escapes."""
        found: Any = self._document
        for part in reference["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return found


def _facts(facts: list[tuple[str, str]]) -> Markup:
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts))


def _search_box() -> Markup:
    return tag("input", type="search", id="filter", placeholder="Filter", aria_label="Filter channels and schemas")


def _topic(address: str) -> Markup:
    """Give a topic whose parameters stand out, and which may be broken behind slashes."""
    levels = [tag("i", level) if level.startswith("{") else join([level]) for level in address.split("/")]
    return join(levels, join(["/", tag("wbr")]))


def _filled(channel: dict[str, Any]) -> str:
    """Give the channel's address with an example for each parameter."""
    examples = {f"{{{name}}}": one["examples"][0] for name, one in channel.get("parameters", {}).items()}
    return "/".join(str(examples.get(level, level)) for level in channel["address"].split("/"))


def _title(operation: dict[str, Any]) -> str:
    return str(operation.get("summary") or operation["x-routemq-handler"])


def _search(address: str, operation: dict[str, Any], key: str) -> str:
    return f"{address} {_title(operation)} {key}".lower()


def _example(verb: str, topic: str, message: dict[str, Any]) -> Markup:
    """Give the examples of ``message``, and the topic they go to."""
    caption = tag("figcaption", f"{verb} ", tag("code", topic)) if topic else tag("figcaption", verb)
    shown = [
        tag("figure", caption, tag("pre", tag("code", _coloured(one["payload"])))) for one in message.get("examples", ())
    ]
    return join(shown or [tag("figure", caption)])


def _coloured(value: Any) -> Markup:
    """Give ``value`` as indented JSON with its names, texts and numbers told apart."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    parts, at = [], 0
    for found in _TOKEN.finditer(text):
        parts.append(text[at : found.start()])
        if found[3] is not None:
            parts.append(tag("b", found[3]))
        elif found[2] is not None:
            parts += [tag("u", found[1]), found[2]]
        else:
            parts.append(tag("s", found[1]))
        at = found.end()
    return join([*parts, text[at:]])


def _digest(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
