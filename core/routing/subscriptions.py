"""The subscriptions that bring every route its messages."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from core.mqtt.topics import Pattern, parse
from core.routing.overlaps import overlapping
from core.routing.tree import Tree
from core.transport.connection import Subscription

if TYPE_CHECKING:
    from collections.abc import Iterable

    from core.routing.registered import Route


def subscriptions_of(routes: Iterable[Route]) -> list[Subscription]:
    """Return the subscriptions of ``routes``, sorted by their filters.

    A filter that another one covers is left out. Each subscription has the highest QoS of the routes that it serves.
    """
    wanted: dict[str, int] = {}
    for route in routes:
        topic_filter = route.pattern.topic_filter
        wanted[topic_filter] = max(wanted.get(topic_filter, 0), route.options.qos)
    # The tree returns the first pattern that covers another, so wide ones are added before narrow ones.
    tree = Tree()
    kept: dict[str, int] = {}
    for topic_filter in sorted(wanted, key=_width):
        pattern = parse_filter(topic_filter)
        cover = tree.cover(pattern)
        if cover is None:
            tree.add(pattern)
            kept[topic_filter] = wanted[topic_filter]
        else:
            kept[cover.text] = max(kept[cover.text], wanted[topic_filter])
    shared = overlapping(kept)
    return [
        Subscription(topic_filter, kept[topic_filter], _identifier(topic_filter) if topic_filter in shared else None)
        for topic_filter in sorted(kept)
    ]


def parse_filter(topic_filter: str) -> Pattern:
    """Return a topic filter as a pattern. Its literal levels may hold brackets, which those of a route's pattern may not."""
    segments = tuple(parse(level).segments[0] if level in {"+", "#"} else level for level in topic_filter.split("/"))
    return Pattern(topic_filter, segments, topic_filter)


def _identifier(topic_filter: str) -> int:
    """Return a subscription identifier that is the same at every start, because messages wait with it between two starts."""
    return int.from_bytes(sha256(topic_filter.encode()).digest()[:4], "big") % 268_435_455 + 1


def _width(topic_filter: str) -> tuple[int, ...]:
    """Return a sort key that puts a filter before those that it covers."""
    return tuple({"#": 0, "+": 1}.get(level, 2) for level in topic_filter.split("/"))
