"""The command `replay`: publish the lines of a file, each a JSON object, to topics made from their fields."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from bootstrap.commands.progress import progress
from bootstrap.commands.publish import Stream, publishing
from core.errors import TopicError
from core.mqtt.topics import check_topic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console

    from config.settings import Settings

MAX_SHOWN = 20
"""Lines and topic levels that are shown, of those that something is wrong with."""
_FIELD = re.compile(r"<([^<>]+)>|\{([^{}]+)\}")
_NO_LEVEL = re.compile(r"[/+#\0]")


class TopicTemplate:
    """A template such as ``rtl_433/<model>/<id>``, which the fields of a JSON object turn into a topic.

    A field that is missing or empty becomes ``unknown``. Characters that a topic level cannot hold (``/ + #`` and NUL)
    become ``_``. ``replaced`` holds the first twenty levels that were changed so. Raise TopicError if the template makes no
    topics.
    """

    def __init__(self, template: str) -> None:
        self._template = template
        self.replaced: dict[str, str] = {}
        self.replacements = 0
        check_topic(_FIELD.sub("x", template))

    def topic(self, fields: dict[str, Any]) -> str:
        """Return the topic for an object with these ``fields``."""
        return _FIELD.sub(lambda found: self._level(fields.get(found[1] or found[2])), self._template)

    def _level(self, value: Any) -> str:
        if value is None or value == "":
            return "unknown"
        text = value if isinstance(value, str) else json.dumps(value)
        level = _NO_LEVEL.sub("_", text)
        if level != text:
            self.replacements += 1
            if len(self.replaced) < MAX_SHOWN:
                self.replaced[text] = level
        return level


class JsonLines:
    """The lines of a file as topics and bodies. Lines that are no JSON objects are skipped, shown and counted."""

    def __init__(self, file: Path, template: TopicTemplate, console: Console) -> None:
        self._file = file
        self._template = template
        self._console = console
        self.skipped = 0

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        with self._file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                body = line.strip()
                if not body:
                    continue
                try:
                    fields = json.loads(body)
                    if not isinstance(fields, dict):
                        raise TypeError("not a JSON object")  # noqa: TRY301 - shown like the others
                    topic = check_topic(self._template.topic(fields))
                except (ValueError, TypeError, RecursionError, TopicError) as error:
                    self.skipped += 1
                    if self.skipped <= MAX_SHOWN:
                        self._console.print(f"line {number} is skipped: {error}", markup=False, soft_wrap=True)
                    continue
                yield topic, body


async def replay(settings: Settings, console: Console, file: Path, template: str, *, rate: float | None, qos: int) -> int:
    """Publish the lines of ``file`` to topics of ``template``.

    Return the exit code: 1 if a line was skipped or not acknowledged. Raise TopicError if ``template`` makes no topics.
    """
    topics = TopicTemplate(template)
    lines = JsonLines(file, topics, console)
    async with publishing(settings) as publisher:
        with progress(console, file.name, None) as advance:
            stream = Stream(publisher, qos, advance)
            await stream.send(iter(lines), rate)
    for text, level in topics.replaced.items():
        console.print(f"{text!r} cannot be a topic level, so {level!r} was used", markup=False, soft_wrap=True)
    if topics.replacements:
        console.print(f"topic levels with replaced characters: {topics.replacements:,}", markup=False)
    if lines.skipped:
        console.print(f"lines skipped: {lines.skipped:,}", markup=False)
    console.print(str(stream), markup=False)
    return 0 if stream.acknowledged == stream.sent and not lines.skipped else 1
