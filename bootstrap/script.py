"""The application around a script of one's own: its database, and a connection to publish on."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bootstrap import storage
from bootstrap.connections import publisher_for
from config.settings import load
from core.errors import BrokerUnreachableError
from core.model import Model
from core.publisher import Publisher, use_publisher

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
        try:
            publisher = await publisher_for(settings, "script")
        except BrokerUnreachableError as error:
            use_publisher(None, str(error))
        else:
            use_publisher(publisher)
        yield
    finally:
        use_publisher(None)
        if publisher is not None:
            await publisher.stop()
        await Model.close()
