"""Publishers of the worker, of commands and of scripts."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from config.settings import CLIENT_ID
from core.publisher import Outgoing, Publisher
from core.transport.brokers.embedded import find_running
from core.transport.connect import connector

if TYPE_CHECKING:
    from config.settings import Settings
    from core.mqtt.publication import Publication
    from core.transport.options import ConnectOptions


def publisher_with(options: ConnectOptions, client_id: str, response_topic: str | None = None) -> Publisher:
    """Return a publisher with a session of its own, which ends with it, under ``client_id``."""
    own = replace(options, client_id=client_id, clean_start=True, will=None)
    return Publisher(connector(own), own.address, response_topic)


async def publisher_for(settings: Settings, purpose: str) -> Publisher:
    """Return a publisher at the broker of ``settings`` for something beside the worker, such as "shell".

    Its client identifier is ``purpose`` with a random end. Raise BrokerUnreachableError where an embedded broker is meant
    and none runs.
    """
    options = await find_running(settings.connect_options())
    client_id = f"{purpose}-{secrets.token_hex(6)}"
    return publisher_with(options, client_id, settings.mqtt_response_topic.replace(CLIENT_ID, client_id))


class LatePublisher(Outgoing):
    """Finds the broker of ``settings`` when something is first published: it need not be there before."""

    def __init__(self, settings: Settings, purpose: str) -> None:
        self._settings = settings
        self._purpose = purpose
        self._publisher: Publisher | None = None

    async def send(self, publication: Publication) -> None:
        """Publish. Raise BrokerUnreachableError where an embedded broker is meant and none runs."""
        if self._publisher is None:
            self._publisher = await publisher_for(self._settings, self._purpose)
        await self._publisher.send(publication)

    async def stop(self) -> None:
        """Disconnect."""
        if self._publisher is not None:
            await self._publisher.stop()
