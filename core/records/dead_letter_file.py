"""Dead letters in a file: for applications without a database, and for dead letters that the database refuses."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
from collections import Counter
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from core.codecs.plain import json_ready
from core.errors import StartError
from core.records.dead_letters import MAX_BYTES, Also, Bounds, DeadLetter, Stored
from core.records.file import append_text, locked, replace_text

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

log = logging.getLogger("routemq.delivery")


class DeadLetterFile:
    """Dead letters in the file at ``path``: a JSON object in each line, with its number.

    The worker and the commands may use the file at the same time. A lock on a file beside it keeps them apart.

    - ``path``: the file.
    - ``most``: how many may be stored. Then DeadLettersFullError is raised, and nothing is deleted.
    - ``size``: how many bytes the file may have. By default 1 GiB.
    """

    def __init__(self, path: Path, most: int, size: int = MAX_BYTES) -> None:
        self._path = path
        self._bounds = Bounds(most, size)
        self._lock = asyncio.Lock()
        self._next: int | None = None
        self._size = -1
        self._lines = 0

    async def add(self, dead_letter: DeadLetter, also: Also | None = None) -> None:
        """Append ``dead_letter``, and wait until it is on the disk. A file has no transaction, so ``also`` is not called."""
        async with self._lock:
            await asyncio.to_thread(self._append, json_ready(asdict(dead_letter)))

    async def count(self) -> int:
        """Return the number of dead letters."""
        return len(await asyncio.to_thread(self._load))

    async def routes(self) -> dict[str, int]:
        """Return how many there are of each route, by its name."""
        found = await asyncio.to_thread(self._load)
        return dict(sorted(Counter(entry["route"] for entry in found if entry["route"] is not None).items()))

    async def last(self) -> int:
        """Return the highest number of a dead letter. Return 0 where there are none."""
        found = await asyncio.to_thread(self._load)
        return int(found[-1]["id"]) if found else 0

    async def read(self, *, after: int = 0, most: int = 100, route: str | None = None) -> list[Stored]:
        """Return at most ``most`` dead letters with numbers above ``after``, the oldest first."""
        found = await asyncio.to_thread(self._load)
        wanted = (entry for entry in found if entry["id"] > after and route in {None, entry["route"]})
        return [_stored(entry) for entry, _ in zip(wanted, range(most), strict=False)]

    async def latest(self, *, most: int, route: str | None = None) -> list[Stored]:
        """Return the latest ``most`` dead letters, the oldest of them first."""
        found = await asyncio.to_thread(self._load)
        return [_stored(entry) for entry in found if route in {None, entry["route"]}][-most:]

    async def get(self, number: int) -> Stored | None:
        """Return the dead letter with this number, or None."""
        found = await self.read(after=number - 1, most=1)
        return found[0] if found and found[0].id == number else None

    async def remove(self, numbers: Collection[int]) -> int:
        """Remove the dead letters with these numbers. Return how many there were."""
        async with self._lock:
            return await asyncio.to_thread(self._rewrite_without, set(numbers))

    # -- in a thread ---------------------------------------------------------------------------------------------------

    def _append(self, entry: dict[str, Any]) -> None:
        with locked(self._path):
            if self._next is None or self._size != self._file_size():
                # The first time, and when a command has rewritten the file meanwhile.
                found = self._load()
                self._next = found[-1]["id"] + 1 if found else 1
                self._lines = len(found)
                if self._ends_within_a_line():
                    self._replace(found)
            self._bounds.check(self._lines, self._file_size())
            append_text(self._path, json.dumps({"id": self._next} | entry) + "\n")
            self._next += 1
            self._lines += 1
            self._size = self._file_size()

    def _rewrite_without(self, numbers: set[int]) -> int:
        with locked(self._path):
            found = self._load()
            kept = [entry for entry in found if entry["id"] not in numbers]
            if len(kept) < len(found):
                self._replace(kept)
            return len(found) - len(kept)

    def _replace(self, entries: list[dict[str, Any]]) -> None:
        replace_text(self._path, "".join(json.dumps(entry) + "\n" for entry in entries))

    def _file_size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def _ends_within_a_line(self) -> bool:
        """Return whether a power cut left half a line, to which another line must not be appended."""
        if not self._file_size():
            return False
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"

    def _load(self) -> list[dict[str, Any]]:
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
            except ValueError:
                # A power cut left the line half written. Its message was never acknowledged.
                log.warning("line %d of %s is not JSON, and is ignored", number, self._path)
                continue
            if not isinstance(entry, dict) or "id" not in entry:
                raise StartError(f"line {number} of {self._path} is not a dead letter. Move the file away and try again")
            found.append(entry)
        return found


def _stored(entry: dict[str, Any]) -> Stored:
    values = dict(entry)
    number = values.pop("id")
    values["body"] = base64.b64decode(values["body"])
    for name in ("first_at", "last_at"):
        values[name] = datetime.fromisoformat(values[name])
    return Stored(number, DeadLetter(**values))
