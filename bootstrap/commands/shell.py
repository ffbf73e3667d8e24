"""python main.py shell: a prompt with the application loaded."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from bootstrap import storage
from bootstrap.commands.prompt import Background, Console, complete_names
from bootstrap.commands.publish import PATIENCE
from bootstrap.connections import publisher_for
from bootstrap.discovery import controllers, discover
from config.settings import shown
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
MAX_SHOWN = 8
DATABASE_PATIENCE = 5.0


class Shell:
    """The application, loaded without a worker: ``send``, ``publish`` and ``request`` are names of the prompt's."""

    def __init__(self, settings: Settings, router: Router, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._router = router
        self._say = say
        self._publisher: Publisher | None = None

    async def send(
        self, topic: str, payload: Any = b"", *, qos: int = 1, retain: bool = False, properties: Properties | None = None
    ) -> Any:
        """Run a message through the application in this process; give what its handler returned, or raise what it raised.

        See ``core.testing.TestClient.send``. What it writes to the database stays; what it publishes is shown and not sent.
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
        """Publish to the broker; see ``core.publisher.publish``. Raises BrokerUnreachableError."""
        await self._connect()
        try:
            async with asyncio.timeout(PATIENCE):
                await publish(topic, payload, qos=qos, retain=retain, properties=properties)
        except TimeoutError:
            raise BrokerUnreachableError(f"the message was not acknowledged within {PATIENCE:.0f} s") from None

    async def request(self, topic: str, payload: Any, **how: Any) -> Any:
        """Ask a device and give its answer; see ``core.request.request``. Raises BrokerUnreachableError."""
        await self._connect()
        return await request(topic, payload, **how)

    async def _connect(self) -> None:
        """Have this process publish to the broker, to which the first message opens the connection."""
        if self._publisher is None:
            self._publisher = await publisher_for(self._settings, "shell")
        use_publisher(self._publisher)

    async def open(self) -> None:
        """Bring the tables to where ``run`` would; the shell starts without broker and database too."""
        try:
            await self._connect()
        except BrokerUnreachableError as error:
            use_publisher(None, str(error))
        if not Model._is_enabled:
            return
        try:
            async with asyncio.timeout(DATABASE_PATIENCE):
                await storage.prepare(upgrades=self._settings.auto_migrate)
        except MigrationError as error:
            self._say(f"{error}; the shell starts nevertheless")
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is told
            self._say(f"{storage.cannot_be_used(error)}; the shell starts nevertheless")

    async def close(self) -> None:
        """Let go of broker and database."""
        use_publisher(None)
        if self._publisher is not None:
            await self._publisher.stop()
        await Model.close()


def shell(settings: Settings, say: Callable[[str], None]) -> int:
    """Run the prompt, or what standard input has; give the exit code. Raises StartError.

    Where standard input is no terminal, the first statement that raises ends it with 1.
    """
    logging.basicConfig(level="WARNING", format="%(levelname)s: %(message)s")
    # What a handler raises is shown as what send raises.
    logging.getLogger("routemq.delivery.failures").disabled = True
    storage.configure(settings)
    router = discover()
    models = {mapper.class_.__name__: mapper.class_ for mapper in Base.registry.mappers}
    handlers = {controller.__name__: controller for controller in controllers()}
    this = Shell(settings, router, say)
    names: dict[str, Any] = {
        **models,
        **handlers,
        "settings": settings,
        "router": router,
        "Model": Model,
        "select": select,
        "func": func,
        "publish": this.publish,
        "request": this.request,
        "send": this.send,
        "__name__": "__console__",
    }
    background = Background()
    try:
        background.run(this.open())
        console = Console(names, background)
        if not sys.stdin.isatty():
            return console.run_script(sys.stdin.read())
        with _history(names):
            console.interact(banner=_banner(settings, models, handlers), exitmsg="")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    finally:
        background.run(this.close())
        background.stop()
    return 0


def _banner(settings: Settings, models: dict[str, Any], handlers: dict[str, Any]) -> str:
    database = shown("database_url", settings.database_url) or "no database"
    return (
        f"RouteMQ {__version__} on {database}; await works here, Ctrl-C stops a statement, Ctrl-D ends\n"
        f"there are Model, select, func, settings, router; models {_listed(models)}; controllers {_listed(handlers)}\n"
        "await send(topic, payload) runs a message through the application here, publish and request go to the broker"
    )


def _listed(names: dict[str, Any]) -> str:
    found = sorted(names)
    more = f" and {len(found) - MAX_SHOWN} more" if len(found) > MAX_SHOWN else ""
    return (", ".join(found[:MAX_SHOWN]) or "none") + more


@contextmanager
def _history(names: dict[str, Any]) -> Iterator[None]:
    """Complete names by Tab, and keep the lines from one shell to the next, where Python was built with readline."""
    complete_names(names)
    try:
        import readline  # noqa: PLC0415 - not on all platforms
    except ImportError:
        yield
        return
    file = storage.FOLDER / "shell_history"
    file.parent.mkdir(parents=True, exist_ok=True)
    # For its owner alone: a line may hold a password.
    file.touch(mode=0o600)
    readline.read_history_file(file)
    readline.set_history_length(MAX_HISTORY)
    try:
        yield
    finally:
        readline.write_history_file(file)
