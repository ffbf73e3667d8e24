"""The application around a script of one's own: its database, and a connection to publish on."""

from __future__ import annotations

import logging
import secrets
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from bootstrap import storage
from config.settings import CLIENT_ID, load
from core.errors import BrokerUnreachableError
from core.model import Model
from core.publisher import Publisher, set_current
from core.transport.brokers.embedded import find_running
from core.transport.connect import connector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def script() -> AsyncIterator[None]:
    """Have ``Model``, ``core.publisher.publish`` and ``core.request.request`` work within, by the settings in force.

    The connection is made by the first message, under a client identifier of its own. Where the settings mean an embedded
    broker, that of a running worker is taken; if none runs, ``Model`` works and publishing raises RequestError. Raises
    SettingsError and StartError.
    """
    # The session tells of a lost connection in the log.
    logging.basicConfig(level="WARNING", format="%(message)s")
    settings = load()
    storage.configure(settings)
    publisher: Publisher | None = None
    try:
        client_id = f"script-{secrets.token_hex(6)}"
        try:
            options = replace(await find_running(settings.connect_options()), client_id=client_id, clean_start=True)
        except BrokerUnreachableError as error:
            set_current(None, str(error))
        else:
            response_topic = settings.mqtt_response_topic.replace(CLIENT_ID, client_id)
            publisher = Publisher(connector(options), options.address, response_topic)
            set_current(publisher)
        yield
    finally:
        set_current(None)
        if publisher is not None:
            await publisher.stop()
        await Model.close()
