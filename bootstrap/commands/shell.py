"""The command `shell`: a Python prompt with the application loaded."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from bootstrap import storage
from bootstrap.commands.prompt import LoopThread, Prompt, complete_names
from bootstrap.commands.publish import MAX_WAIT
from bootstrap.connections import publisher_for
from bootstrap.discovery import controllers, discover
from config.settings import masked
from core import __version__
from core.errors import BrokerUnreachableError, MigrationError
from core.model import Base, Model
from core.publisher import Publisher, publish, use_publisher
from core.request import request
from core.testing import TestClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from config.settings import Settings
    from core.mqtt.message import Properties
    from core.router import Router

MAX_HISTORY = 1000
"""Lines that are kept from one shell to the next."""
MAX_SHOWN = 8
"""Names of models, and of controllers, that are listed at the start."""
MAX_DATABASE_WAIT = 5.0
"""Seconds that the database may take to answer before the shell starts without it."""


class Shell:
    """The application, loaded without a worker. The prompt has ``send``, ``publish`` and ``request`` as names."""

    def __init__(self, settings: Settings, router: Router, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._router = router
        self._say = say
        self._publisher: Publisher | None = None

    async def send(
        self, topic: str, payload: Any = b"", *, qos: int = 1, retain: bool = False, properties: Properties | None = None
    ) -> Any:
        """Run a message through the application in this process, as ``core.testing.TestClient.send`` does.

        Return what its handler returns, or raise what it raises. What the handler writes to the database stays there. What
        it publishes is shown, and not sent to the broker.
        """
        try:
            async with TestClient(self._router, timeout=self._settings.handler_timeout) as client:
                try:
                    return await client.send(topic, payload, qos=qos, retain=retain, properties=properties)
                finally:
                    for published in client.published:
                        self._say(f"published {published.topic}: {published.payload!r}")
                    for letter in client.dead_letters:
                        self._say(f"now a dead letter: {letter.reason}")
        finally:
            use_publisher(self._publisher)

    async def publish(
        self, topic: str, payload: Any, *, qos: int = 1, retain: bool = False, properties: Properties | None = None
    ) -> None:
        """Publish to the broker, as ``core.publisher.publish`` does. Raise BrokerUnreachableError if it does not answer."""
        await self._connect()
        try:
            async with asyncio.timeout(MAX_WAIT):
                await publish(topic, payload, qos=qos, retain=retain, properties=properties)
        except TimeoutError:
            raise BrokerUnreachableError(f"the message was not acknowledged within {MAX_WAIT:.0f} s") from None

    async def request(self, topic: str, payload: Any, **how: Any) -> Any:
        """Send a request to a device and return its answer, as ``core.request.request`` does.

        Raise BrokerUnreachableError if the settings name an embedded broker and none runs.
        """
        await self._connect()
        return await request(topic, payload, **how)

    async def _connect(self) -> None:
        """Let this process publish to the broker. The first message opens the connection."""
        if self._publisher is None:
            self._publisher = await publisher_for(self._settings, "shell")
        use_publisher(self._publisher)

    async def open(self) -> None:
        """Bring the tables to the state that ``run`` needs. The shell starts without broker and database too."""
        try:
            await self._connect()
        except BrokerUnreachableError as error:
            use_publisher(None, str(error))
        if not Model._is_enabled:
            return
        try:
            async with asyncio.timeout(MAX_DATABASE_WAIT):
                await storage.prepare(upgrades=self._settings.auto_migrate)
        except MigrationError as error:
            self._say(f"{error}; the shell starts all the same")
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is shown
            self._say(f"{storage.unusable(error)}; the shell starts all the same")

    async def close(self) -> None:
        """Close the connections to the broker and to the database."""
        use_publisher(None)
        if self._publisher is not None:
            await self._publisher.stop()
        await Model.close()


def shell(settings: Settings, say: Callable[[str], None]) -> int:
    """Open the prompt. If standard input is no terminal, run it as a script instead. Return the exit code.

    The first statement of a script that raises ends it, and makes the exit code 1. Raise StartError if the application
    cannot be loaded.
    """
    logging.basicConfig(level="WARNING", format="%(levelname)s: %(message)s")
    # What a handler raises is shown because send raises it, and need not be logged too.
    logging.getLogger("routemq.delivery.failures").disabled = True
    storage.configure(settings)
    router = discover()
    models = {mapper.class_.__name__: mapper.class_ for mapper in Base.registry.mappers}
    handlers = {controller.__name__: controller for controller in controllers()}
    application = Shell(settings, router, say)
    names: dict[str, Any] = {
        **models,
        **handlers,
        "settings": settings,
        "router": router,
        "Model": Model,
        "select": select,
        "func": func,
        "publish": application.publish,
        "request": application.request,
        "send": application.send,
        "__name__": "__console__",
    }
    loop = LoopThread()
    try:
        loop.run(application.open())
        prompt = Prompt(names, loop)
        if not sys.stdin.isatty():
            return prompt.run_script(sys.stdin.read())
        with _line_editing(names):
            prompt.interact(banner=_banner(settings, models, handlers), exitmsg="")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    finally:
        loop.run(application.close())
        loop.stop()
    return 0


def _banner(settings: Settings, models: dict[str, Any], handlers: dict[str, Any]) -> str:
    database = masked("database_url", settings.database_url) or "no database"
    return (
        f"RouteMQ {__version__}\n"
        f"  database     {database}\n"
        f"  models       {_listed(models)}\n"
        f"  controllers  {_listed(handlers)}\n"
        "  more names   Model, select, func, settings, router\n"
        "You can use await. Ctrl-C stops a statement, and Ctrl-D ends the shell.\n"
        "await send(topic, payload) runs a message through the application in this process.\n"
        "await publish(topic, payload) and await request(topic, payload) send one to the broker."
    )


def _listed(names: dict[str, Any]) -> str:
    found = sorted(names)
    more = f" and {len(found) - MAX_SHOWN} more" if len(found) > MAX_SHOWN else ""
    return (", ".join(found[:MAX_SHOWN]) or "none") + more


@contextmanager
def _line_editing(names: dict[str, Any]) -> Iterator[None]:
    """Let the Tab key complete ``names``, and keep the lines for the next shell, if Python was built with readline."""
    complete_names(names)
    try:
        import readline  # noqa: PLC0415 - not on all platforms
    except ImportError:
        yield
        return
    file = storage.FOLDER / "shell_history"
    file.parent.mkdir(parents=True, exist_ok=True)
    # Only its owner may read it, because a line may hold a password.
    file.touch(mode=0o600)
    readline.read_history_file(file)
    readline.set_history_length(MAX_HISTORY)
    try:
        yield
    finally:
        readline.write_history_file(file)
