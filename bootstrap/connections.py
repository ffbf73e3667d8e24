"""Publishers of the worker, of commands and of scripts."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from config.settings import CLIENT_ID
from core.publisher import Outgoing, Publisher
from core.session.identity import PROBE, Identity, probe
from core.transport.brokers.embedded import find_running
from core.transport.connect import connector

if TYPE_CHECKING:
    from config.settings import Settings
    from core.mqtt.publication import Publication
    from core.records.session_hold import SessionRecord
    from core.session.identity import Verdict
    from core.transport.options import ConnectOptions

MAX_PROBE = 60
"""Seconds after which a broker of MQTT 5 forgets a probe that was cut off."""


def publisher_with(options: ConnectOptions, client_id: str, response_topic: str) -> Publisher:
    """Return a publisher that connects as ``client_id``. Its session with the broker ends with its connection."""
    own = replace(options, client_id=client_id, clean_start=True, will=None)
    return Publisher(connector(own), own.address, response_topic)


def identity_of(options: ConnectOptions, record: SessionRecord) -> Identity:
    """Return what is known of the broker's packet identifiers, and asks the broker where nothing is.

    What it answers is kept in ``record``.
    """
    identity = Identity(
        options.address,
        options.client_id,
        lambda: asked(options),
        lambda verdict: record.identified(verdict.name),
    )
    identity.remember(record.before.identity, record.before.identity_at)
    return identity


async def asked(options: ConnectOptions) -> Verdict:
    """Ask the broker what it does with packet identifiers (see ``core.session.identity.probe``)."""
    own = replace(options, client_id=options.client_id + PROBE, session_expiry=MAX_PROBE, will=None)
    return await probe(connector(replace(own, clean_start=True)), connector(own))


async def publisher_for(settings: Settings, purpose: str) -> Publisher:
    """Return a publisher for a command or a script, connected to the broker of ``settings``.

    Its client identifier is ``purpose``, such as "shell", with a random end. Raise BrokerUnreachableError if the settings
    name an embedded broker and none runs.
    """
    options = await find_running(settings.connect_options())
    client_id = f"{purpose}-{secrets.token_hex(6)}"
    return publisher_with(options, client_id, settings.mqtt_response_topic.replace(CLIENT_ID, client_id))


class LazyPublisher(Outgoing):
    """A publisher that looks for the broker of ``settings`` only when something is first published."""

    def __init__(self, settings: Settings, purpose: str) -> None:
        self._settings = settings
        self._purpose = purpose
        self._publisher: Publisher | None = None

    async def send(self, publication: Publication) -> None:
        """Publish. Raise BrokerUnreachableError if the settings name an embedded broker and none runs."""
        if self._publisher is None:
            self._publisher = await publisher_for(self._settings, self._purpose)
        await self._publisher.send(publication)

    async def stop(self) -> None:
        """Disconnect, if something was published."""
        if self._publisher is not None:
            await self._publisher.stop()
