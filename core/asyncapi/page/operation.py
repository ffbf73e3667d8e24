"""What the page shows of an operation: its topic, payload, promises and examples, and its reply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.asyncapi.page.guarantee import delivery, order
from core.asyncapi.page.json_tokens import tokens
from core.asyncapi.page.prose import Block, prose
from core.asyncapi.page.schema import Schema, schema_of
from core.asyncapi.page.words import Fact, Words, code, inline, join

if TYPE_CHECKING:
    from core.asyncapi.page.references import References


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a topic, and its converter."""

    name: str
    type: str
    description: Words


@dataclass(frozen=True, slots=True)
class Payload:
    """What a message holds. ``schema`` is None if only the content type is known."""

    title: str
    content_type: str
    schema: Schema | None


@dataclass(frozen=True, slots=True)
class Examples:
    """Bodies of a message, and the topic that they go to. ``topic`` is empty if a request names it."""

    verb: str
    topic: str
    bodies: list[Words]


@dataclass(frozen=True, slots=True)
class Reply:
    """What an operation answers. ``address`` is None if the request names the topic of its reply."""

    address: str | None
    description: Words
    payloads: list[Payload]
    examples: list[Examples]


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route takes and answers. ``title`` is its summary, or else its handler's name."""

    key: str
    address: str
    title: str
    summary: Words
    description: list[Block]
    chips: list[str]
    parameters: list[Parameter]
    payloads: list[Payload]
    facts: list[Fact]
    examples: list[Examples]
    reply: Reply | None

    @property
    def search(self) -> str:
        """The text that the page's filter searches, in lower case."""
        return f"{self.address} {self.title} {self.key}".lower()


def operation_of(key: str, operation: dict[str, Any], references: References) -> Operation:
    """Return what is shown of ``operation``, which the document has under ``key``."""
    channel = references.at(operation["channel"])
    messages = [references.at(one) for one in operation["messages"]]
    summary = operation.get("summary") or ""
    topic = _filled(channel)
    return Operation(
        key,
        channel["address"],
        str(summary or operation["x-routemq-handler"]),
        inline(summary),
        prose(operation.get("description") or ""),
        _chips(operation, messages),
        [
            Parameter(name, parameter["x-routemq-converter"], inline(parameter["description"]))
            for name, parameter in channel.get("parameters", {}).items()
        ],
        [_payload("Payload", message, references) for message in messages],
        _facts(operation, channel),
        [_examples("Publish to", topic, message) for message in messages],
        _reply(operation["reply"], references) if "reply" in operation else None,
    )


def _chips(operation: dict[str, Any], messages: list[dict[str, Any]]) -> list[str]:
    chips = [f"QoS {operation['bindings']['mqtt']['qos']}", delivery(operation).name]
    if "x-routemq-batch" in operation:
        chips.append(f"handled in lists of up to {operation['x-routemq-batch']:,}")
    return [*chips, *dict.fromkeys(message["contentType"] for message in messages)]


def _facts(operation: dict[str, Any], channel: dict[str, Any]) -> list[Fact]:
    facts = [delivery(operation), Fact("Order", order(operation))]
    if "x-routemq-dedup" in operation:
        key = code(operation["x-routemq-dedup"])
        repeats = join(["Of messages with the same key (", key, ") only the first is handled."])
        facts.append(Fact("Repeats", repeats))
    if "x-routemq-codec" in operation:
        facts.append(Fact("Codec", code(operation["x-routemq-codec"])))
    facts.append(Fact("Channel", inline(channel["description"])))
    facts.append(Fact("Handler", code(operation["x-routemq-handler"])))
    return facts


def _payload(title: str, message: dict[str, Any], references: References) -> Payload:
    schema = schema_of(message["payload"], references) if "payload" in message else None
    return Payload(title, message["contentType"], schema)


def _reply(reply: dict[str, Any], references: References) -> Reply:
    channel = references.at(reply["channel"])
    address = channel["address"]
    messages = [references.at(one) for one in reply["messages"]]
    several = len(messages) > 1
    return Reply(
        address,
        inline(reply["address"]["description"] if address is None else channel["description"]),
        [_payload(message["title"] if several else "Payload", message, references) for message in messages],
        [
            _examples("Answered", "", message) if address is None else _examples("Answered on", _filled(channel), message)
            for message in messages
        ],
    )


def _examples(verb: str, topic: str, message: dict[str, Any]) -> Examples:
    return Examples(verb, topic, [tokens(one["payload"]) for one in message.get("examples", ())])


def _filled(channel: dict[str, Any]) -> str:
    """Return the channel's address with an example for each parameter."""
    examples = {f"{{{name}}}": one["examples"][0] for name, one in channel.get("parameters", {}).items()}
    return "/".join(str(examples.get(level, level)) for level in channel["address"].split("/"))
