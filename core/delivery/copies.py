"""Tells apart the copies that a broker sends of one message, one for each subscription that takes it (MQTT 5, 3.3.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.mqtt.topics import Tree, parse

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from core.mqtt.message import Message
    from core.transport.connection import Subscription


class Copies:
    """Knows, by the subscription identifiers, which copy of a message is the one to be handled.

    Of the subscriptions that take a topic, the copy of the first counts. Those that the session had before, ``known``,
    are first: what waited in it has no copies for newer ones. Without identifiers (MQTT 3.1.1) nothing tells a copy from
    a device that sends the same twice, and all are handled.
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
        """Say whether another copy of ``message`` is the one to be handled."""
        found = message.properties.get("subscription_identifier") if message.properties else None
        # A single copy names all its subscriptions; one with an unknown identifier waited since another start.
        if found is None or len(found) != 1 or found[0] not in self._identifiers:
            return False
        first = self._tree.find(message.topic)
        return first is not None and self._identifiers[first[0]] != found[0]
