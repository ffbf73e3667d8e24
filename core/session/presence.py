"""The status that a worker keeps on a topic: online, or offline."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from core.transport.options import Will


class Presence:
    """What is told of the client ``client_id`` of RouteMQ ``version`` on ``topic``, retained, as JSON.

    ``since`` is a time in ISO 8601, in UTC.
    """

    def __init__(self, topic: str, client_id: str, version: str) -> None:
        self.topic = topic
        self._client_id = client_id
        self._version = version

    def will(self) -> Will:
        """Give what the broker publishes of a worker that is gone without a word; nobody can write ``since`` before."""
        return Will(self.topic, self._body("offline", None))

    def online(self) -> bytes:
        """Give the body for a connection that stands."""
        return self._body("online", datetime.now(UTC))

    def offline(self) -> bytes:
        """Give the body for a worker that is about to disconnect."""
        return self._body("offline", datetime.now(UTC))

    def _body(self, status: str, since: datetime | None) -> bytes:
        told = {
            "status": status,
            "client_id": self._client_id,
            "version": self._version,
            "since": since and since.isoformat(timespec="milliseconds"),
        }
        return json.dumps(told).encode()
