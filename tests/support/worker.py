"""The worker as a process of its own, in a project folder of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from textwrap import dedent
from typing import Any, Protocol

from config.settings import PREFIXES
from core.publisher import Publisher
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
MAIN = 'from bootstrap.cli import main\n\nif __name__ == "__main__":\n    main()\n'


def clean_environment() -> dict[str, str]:
    """Give this process's environment without settings of the worker's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIXES)}
    return environment | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "200", "NO_COLOR": "1"}


class Project:
    """A folder with a ``main.py``: with ``routers`` given (module name to source) an application of its own."""

    def __init__(self, folder: Path, routers: dict[str, str] | None = None, models: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.environment: dict[str, str] = {}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "main.py").write_text(MAIN)
        if routers is not None:
            for package, modules in (("routers", routers), ("models", models or {})):
                (folder / "app" / package).mkdir(parents=True, exist_ok=True)
                (folder / "app" / package / "__init__.py").touch()
                for name, source in modules.items():
                    (folder / "app" / package / f"{name}.py").write_text(dedent(source))
            (folder / "app" / "__init__.py").touch()

    def set(self, **variables: object) -> Project:
        """Write ``variables`` to `.env`, beside those that are there."""
        self.environment |= {name: str(value) for name, value in variables.items()}
        lines = (f'{name}="{value}"\n' for name, value in self.environment.items())
        (self.folder / ".env").write_text("".join(lines))
        return self

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the project's SQLite file; no rows where it, or the table, is not there yet."""
        file = self.folder / "storage" / "routemq.db"
        if not file.exists():
            return []
        connection = sqlite3.connect(file, timeout=20)
        try:
            return connection.execute(sql).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return []
        finally:
            connection.close()

    def count(self, table: str) -> int:
        return int((self.rows(f"SELECT count(*) FROM {table}") or [(0,)])[0][0])

    def start(self, *arguments: str) -> Worker:
        """Start ``main.py``, with the output of all processes of this project in one file."""
        return Worker(self, arguments)

    async def command(self, *arguments: str, seconds: float = 60) -> tuple[int, str]:
        """Run a command to its end; give its exit code and output."""
        worker = self.start(*arguments)
        return await worker.ended(seconds), worker.output


class Projects(Protocol):
    """Makes projects, as the fixture ``project`` does; ``variables`` are settings."""

    def __call__(
        self, routers: dict[str, str] | None = None, models: dict[str, str] | None = None, **variables: object
    ) -> Project: ...


Publishers = Callable[[Project | str], Awaitable[Publisher]]
"""Makes publishers, as the fixture ``publisher`` does, at the broker of a project or of a URL."""


class Worker:
    """A running ``main.py``."""

    def __init__(self, project: Project, arguments: tuple[str, ...] = ()) -> None:
        numbers = [int(file.suffix[1:]) for file in project.folder.glob("output.*")]
        self._file = project.folder / f"output.{max(numbers, default=0) + 1:04d}"
        with self._file.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "main.py", *arguments],
                cwd=project.folder,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._file.read_text(errors="replace")

    async def says(self, text: str, seconds: float = 30) -> str:
        """Wait until the output has ``text``."""
        try:
            await until(lambda: text in self.output, seconds)
        except AssertionError:
            raise AssertionError(f"{text!r} was not said within {seconds:g} s:\n{self.output[-5000:]}") from None
        return self.output

    async def ready(self, seconds: float = 30) -> Worker:
        """Wait until the worker is connected and subscribed, for which it may have to work through a backlog."""
        await self.says("ready:", seconds)
        return self

    async def ended(self, seconds: float = 60) -> int:
        try:
            return await asyncio.to_thread(self.process.wait, seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not end within {seconds:g} s:\n{self.output[-5000:]}") from None

    async def stop(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        """Ask it to stop and give its exit code."""
        self.process.send_signal(number)
        return await self.ended(seconds)

    def kill(self) -> None:
        """SIGKILL it."""
        self.process.kill()
        self.process.wait()
