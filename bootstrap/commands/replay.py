"""Publishes a file of JSON objects, one a line, each to a topic made of its fields."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from bootstrap.commands.progress import progress
from bootstrap.commands.publish import Load, publishing
from core.errors import TopicError
from core.mqtt.topics import check_topic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console

    from config.settings import Settings

MAX_TOLD = 20
_FIELD = re.compile(r"<([^<>]+)>|\{([^{}]+)\}")
_NO_LEVEL = re.compile(r"[/+#\0]")


class TopicMaker:
    """Makes topics of a template such as ``rtl_433/<model>/<id>`` and the fields of JSON objects.

    A missing field, or an empty one, is ``unknown``. Characters that a topic level cannot hold (``/ + #`` and NUL) become
    ``_``; ``replaced`` holds what that came to, the first twenty.
    """

    def __init__(self, template: str) -> None:
        self._template = template
        self.replaced: dict[str, str] = {}
        self.replacements = 0
        check_topic(_FIELD.sub("x", template))

    def topic(self, fields: dict[str, Any]) -> str:
        """Give the topic for one object."""
        return _FIELD.sub(lambda found: self._level(fields.get(found[1] or found[2])), self._template)

    def _level(self, value: Any) -> str:
        if value is None or value == "":
            return "unknown"
        text = value if isinstance(value, str) else json.dumps(value)
        level = _NO_LEVEL.sub("_", text)
        if level != text:
            self.replacements += 1
            if len(self.replaced) < MAX_TOLD:
                self.replaced[text] = level
        return level


class Lines:
    """The lines of a file as topics and bodies; those that are no JSON objects are counted and told."""

    def __init__(self, file: Path, maker: TopicMaker, console: Console) -> None:
        self._file = file
        self._maker = maker
        self._console = console
        self.bad = 0

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        with self._file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                body = line.strip()
                if not body:
                    continue
                try:
                    fields = json.loads(body)
                    if not isinstance(fields, dict):
                        raise TypeError("not a JSON object")  # noqa: TRY301 - told like the others
                    topic = check_topic(self._maker.topic(fields))
                except (ValueError, TypeError, RecursionError, TopicError) as error:
                    self.bad += 1
                    if self.bad <= MAX_TOLD:
                        self._console.print(f"line {number} is passed over: {error}", markup=False, soft_wrap=True)
                    continue
                yield topic, body


async def replay(settings: Settings, console: Console, file: Path, template: str, *, rate: float | None, qos: int) -> int:
    """Publish the lines of ``file``; give the exit code, 1 if any was passed over or not acknowledged."""
    maker = TopicMaker(template)
    lines = Lines(file, maker, console)
    async with publishing(settings) as publisher:
        with progress(console, file.name, None) as advance:
            load = Load(publisher, qos, advance)
            await load.send(iter(lines), rate)
    for text, level in maker.replaced.items():
        console.print(f"{text!r} cannot be a topic level, {level!r} was used", markup=False, soft_wrap=True)
    if maker.replacements:
        console.print(f"{maker.replacements:,} topic levels had characters replaced", markup=False)
    if lines.bad:
        console.print(f"{lines.bad:,} lines passed over", markup=False)
    console.print(str(load), markup=False)
    return 0 if load.acknowledged == load.sent and not lines.bad else 1
