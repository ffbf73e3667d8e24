"""Topic filters that have topics in common, and the copies of a message that a broker sends for them (MQTT 5, 3.3.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.mqtt.topics import parse
from core.routing.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from core.mqtt.message import Message
    from core.transport.connection import Subscription


class _Node:
    """One level of a tree of topic filters.

    ``ending`` is the filter that ends here. ``rest`` is the filter that goes on with ``#``.
    """

    __slots__ = ("children", "ending", "rest")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.ending: str | None = None
        self.rest: str | None = None

    def all(self) -> Iterator[str]:
        """Yield all filters that end here or below."""
        if self.ending is not None:
            yield self.ending
        if self.rest is not None:
            yield self.rest
        for child in self.children.values():
            yield from child.all()


def overlapping(topic_filters: Iterable[str]) -> set[str]:
    """Return the filters that have a topic in common with another one (MQTT 5, 4.7).

    No filter in ``topic_filters`` may cover another. The walk through the tree of filters follows pairs of branches that
    take the same levels. So filters that have nothing in common cost no more than one look at each.
    """
    root = _Node()
    for topic_filter in topic_filters:
        node = root
        levels = topic_filter.split("/")
        for level in levels[:-1] if levels[-1] == "#" else levels:
            node = node.children.setdefault(level, _Node())
        if levels[-1] == "#":
            node.rest = topic_filter
        else:
            node.ending = topic_filter
    found: set[str] = set()
    pairs = [(root, root)]
    seen: set[tuple[int, int]] = set()
    while pairs:
        one, other = pairs.pop()
        if (id(one), id(other)) in seen:
            continue
        seen |= {(id(one), id(other)), (id(other), id(one))}
        if one is not other:
            for wide, below in ((one, other), (other, one)):
                if wide.rest is not None and (narrow := set(below.all())):
                    found |= {wide.rest, *narrow}
            if one.ending is not None and other.ending is not None:
                found |= {one.ending, other.ending}
        pairs.extend(_pairs(one, other, at_top=one is root and other is root))
    return found


def _pairs(one: _Node, other: _Node, *, at_top: bool) -> Iterator[tuple[_Node, _Node]]:
    """Yield the pairs of children that have a level in common."""
    for level, child in one.children.items():
        if level in other.children:
            yield child, other.children[level]
        # A wildcard does not take a first level that begins with $ (MQTT 5, 4.7.2).
        if level != "+" and "+" in other.children and not (at_top and level.startswith("$")):
            yield child, other.children["+"]
    if one is not other and "+" in one.children:
        for level, child in other.children.items():
            if level != "+":
                yield one.children["+"], child


class Copies:
    """Finds out, by the subscription identifiers, which copy of a message is to be handled.

    Of the subscriptions that take a topic, the copy of the first one is handled. MQTT 3.1.1 has no identifiers. There a
    copy cannot be told from a message that a device sends twice, and all are handled.

    - ``subscriptions``: those of the session, in any order.
    - ``known``: the filters that the session had before. They come first, because the messages that waited in the session
      have no copies for newer filters.
    """

    def __init__(self, subscriptions: Sequence[Subscription], known: Collection[str] = ()) -> None:
        overlapping = [subscription for subscription in subscriptions if subscription.identifier is not None]
        overlapping.sort(key=lambda subscription: (subscription.topic_filter not in known, subscription.topic_filter))
        self._tree = Tree()
        self._identifiers = [subscription.identifier for subscription in overlapping]
        for subscription in overlapping:
            self._tree.add(parse(subscription.topic_filter))

    def __bool__(self) -> bool:
        return bool(self._identifiers)

    def is_further(self, message: Message) -> bool:
        """Return whether ``message`` is a further copy, while another copy of it is to be handled."""
        found = message.properties.get("subscription_identifier") if message.properties else None
        # A single copy names all its subscriptions. One with an unknown identifier has waited since an earlier start.
        if found is None or len(found) != 1 or found[0] not in self._identifiers:
            return False
        first = self._tree.find(message.topic)
        return first is not None and self._identifiers[first[0]] != found[0]
