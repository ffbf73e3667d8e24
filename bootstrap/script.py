"""What a script of your own needs of the application: its database, and a connection to publish on."""

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
    """Make ``Model``, ``core.publisher.publish`` and ``core.request.request`` work within the block.

    They use the settings in force. The connection to the broker is opened by the first message, under a client identifier of
    its own. If the settings name an embedded broker, the one of a running worker is used. If none runs, ``Model`` works and
    publishing raises RequestError. Raise SettingsError for a wrong setting. Raise StartError if a model cannot be imported.
    """
    # The session logs a lost connection.
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
