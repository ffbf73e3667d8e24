"""The status that a worker keeps on a topic: online, or offline."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from core.mqtt.publication import Publication


class Presence:
    """The status of a worker, published as JSON and retained.

    - ``topic``: the topic that it is published on.
    - ``client_id``: the worker's client identifier, which the status names.
    - ``version``: the version of RouteMQ, which the status names too.

    The time ``since`` of a status is in ISO 8601, in UTC.
    """

    def __init__(self, topic: str, client_id: str, version: str) -> None:
        self.topic = topic
        self._client_id = client_id
        self._version = version

    def will(self) -> Publication:
        """Return what the broker publishes of a worker that is gone without a word.

        Its ``since`` is null, since nobody knows the time before.
        """
        return self._told("offline", None)

    def online(self) -> Publication:
        """Return the status of a worker whose connection stands."""
        return self._told("online", datetime.now(UTC))

    def offline(self) -> Publication:
        """Return the status of a worker that is about to disconnect."""
        return self._told("offline", datetime.now(UTC))

    def _told(self, status: str, since: datetime | None) -> Publication:
        told = {
            "status": status,
            "client_id": self._client_id,
            "version": self._version,
            "since": since and since.isoformat(timespec="milliseconds"),
        }
        return Publication(self.topic, json.dumps(told).encode(), qos=1, retain=True)
