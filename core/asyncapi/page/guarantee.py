"""What a route promises of its messages, in plain words."""

from __future__ import annotations

from typing import Any

from core.asyncapi.page.words import Fact, Words, inline, plain

_DELIVERY = {
    "at_least_once": (
        "At least once",
        "A message is acknowledged when its handler is done. After a crash it may be handled a second time.",
    ),
    "exactly_once": (
        "Exactly once",
        "What a message causes to be written is committed once, together with a record of the message.",
    ),
    "at_most_once": (
        "At most once",
        "A message is acknowledged on receipt and never tried again: it may be lost, and is never handled twice.",
    ),
}
_AT_QOS_0 = (
    "No guarantee",
    "At QoS 0 a message is lost where the connection breaks or the worker dies before it is handled.",
)


def delivery(operation: dict[str, Any]) -> Fact:
    """Return how often an operation handles a message: its name, and what it means."""
    at_qos_0 = operation["bindings"]["mqtt"]["qos"] == 0
    name, meaning = _AT_QOS_0 if at_qos_0 else _DELIVERY[operation["x-routemq-delivery"]]
    return Fact(name, plain(meaning))


def order(operation: dict[str, Any]) -> Words:
    """Return the order in which an operation handles messages."""
    by = operation["x-routemq-order-by"]
    if by == "topic":
        return inline("Messages on one topic are handled one after the other, in the order in which they came.")
    if by == "nothing":
        return inline("Messages are handled side by side, in no order.")
    if by.startswith("{"):
        return inline(f"Messages with the same `{by}` are handled one after the other, in the order in which they came.")
    return inline(f"Messages with the same key, given by `{by}`, are handled one after the other.")
