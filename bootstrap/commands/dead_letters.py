"""The command `dead-letters`: show dead letters, run them again, and delete them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from bootstrap import storage
from bootstrap.commands.progress import progress
from bootstrap.connections import LazyPublisher
from bootstrap.discovery import discover
from core.errors import StartError
from core.handling.replay import every, run_again
from core.handling.runner import Runner
from core.model import Model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from typing import Any

    from rich.console import Console

    from config.settings import Settings
    from core.records.dead_letters import DeadLetterStore, Stored

MAX_SHOWN = 20
"""Dead letters whose new failure is shown."""


@asynccontextmanager
async def _opened(settings: Settings, *, runs: bool = False) -> AsyncIterator[DeadLetterStore]:
    """Yield the dead letters. With ``runs``, make the application's tables too, so that its handlers can run.

    Raise StartError if the database, or the file in its place, cannot be used.
    """
    storage.configure(settings)
    try:
        async with storage.without_waiting():
            await (storage.prepare(upgrades=settings.auto_migrate) if runs else storage.own_tables())
        yield storage.dead_letters(settings)
    finally:
        await Model.close()


async def list_them(settings: Settings, console: Console, *, route: str | None, most: int) -> int:
    """Print the latest ``most`` dead letters, of all routes or of ``route``. Return the exit code."""
    async with _opened(settings) as dead_letters:
        total = await dead_letters.count()
        latest = await dead_letters.latest(most=most, route=route)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("id", "last", "topic", "route", "attempts", "reason"):
        table.add_column(name, no_wrap=name in {"id", "last", "attempts"}, min_width=4)
    for stored in latest:
        letter = stored.letter
        when = letter.last_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        reason = letter.reason.replace("\n", "; ")
        table.add_row(
            str(stored.id), when, _cut(letter.topic), _cut(letter.route or "-"), str(letter.attempts), _cut(reason)
        )
    if latest:
        console.print(table, markup=False)
    of = f" of {total:,}" if len(latest) < total else ""
    plural = "s" * ((total if of else len(latest)) != 1)
    console.print(f"{len(latest):,}{of} dead letter{plural}", markup=False)
    return 0


def _cut(text: str) -> Text:
    """Return the cell of a column that is cut off where the terminal is narrow, so that a dead letter stays on one line."""
    return Text(text, no_wrap=True, overflow="ellipsis")


async def show(settings: Settings, console: Console, number: int) -> int:
    """Print the dead letter ``number`` with everything that is known of it. Return the exit code.

    Raise StartError if there is no such dead letter.
    """
    async with _opened(settings) as dead_letters:
        stored = await dead_letters.get(number)
    if stored is None:
        raise _no_such(number)
    letter = stored.letter
    try:
        body = letter.body.decode()
    except UnicodeDecodeError:
        body = letter.body.hex(" ")
    rows: dict[str, Any] = {
        "id": stored.id,
        "topic": letter.topic,
        "route": letter.route or "-",
        "qos": letter.qos,
        "retain": str(letter.retain).lower(),
        "properties": letter.properties or "-",
        "attempts": letter.attempts,
        "first": letter.first_at.isoformat(),
        "last": letter.last_at.isoformat(),
        "client": letter.client_id,
        "error": letter.error,
        "reason": letter.reason.replace("\n", "\n" + " " * 11),
        "body": f"{len(letter.body):,} bytes",
    }
    for name, value in rows.items():
        console.print(f"{name:11}{value}", markup=False, soft_wrap=True)
    console.print(body, markup=False, soft_wrap=True)
    if letter.traceback:
        console.print(letter.traceback.rstrip(), markup=False, soft_wrap=True)
    return 0


async def replay(settings: Settings, console: Console, numbers: Sequence[int], *, route: str | None, all_: bool) -> int:
    """Run the chosen dead letters through the application, in this process. Return the exit code: 1 if one failed again."""
    router = discover()
    router.freeze()
    async with _opened(settings, runs=True) as dead_letters, _publisher(settings) as outgoing:
        chosen = await _chosen(dead_letters, numbers, route, all_=all_)
        runner = Runner(outgoing, settings.handler_timeout, settings.limits())
        try:
            with progress(console, "dead letters", None) as advance:
                tally = await run_again(router, runner, dead_letters, chosen, advance)
        finally:
            runner.stop()
    for number, reason in tally.failed[:MAX_SHOWN]:
        console.print(f"{number} failed again: {reason}", markup=False, soft_wrap=True)
    console.print(f"{tally.done:,} replayed and removed, {tally.failures:,} kept after failing again", markup=False)
    return 1 if tally.failures else 0


async def drop(settings: Settings, console: Console, numbers: Sequence[int], *, route: str | None, all_: bool) -> int:
    """Delete the chosen dead letters for good. Return the exit code."""
    dropped = 0
    async with _opened(settings) as dead_letters:
        async for stored in await _chosen(dead_letters, numbers, route, all_=all_):
            dropped += await dead_letters.remove([stored.id])
    console.print(f"{dropped:,} dropped", markup=False)
    return 0


async def _chosen(
    dead_letters: DeadLetterStore, numbers: Sequence[int], route: str | None, *, all_: bool
) -> AsyncIterator[Stored]:
    if sum((bool(numbers), route is not None, all_)) != 1:
        raise StartError("say which dead letters: give either their ids, or --route NAME, or --all")
    if not numbers:
        return every(dead_letters, route)
    found = []
    for number in dict.fromkeys(numbers):
        stored = await dead_letters.get(number)
        if stored is None:
            raise _no_such(number)
        found.append(stored)
    return _iterate(found)


async def _iterate(found: list[Stored]) -> AsyncIterator[Stored]:
    for stored in found:
        yield stored


def _no_such(number: int) -> StartError:
    return StartError(f"there is no dead letter {number}; python main.py dead-letters list shows those that exist")


@asynccontextmanager
async def _publisher(settings: Settings) -> AsyncIterator[LazyPublisher]:
    # Most handlers publish nothing, and then the broker need not be there.
    publisher = LazyPublisher(settings, "replay")
    try:
        yield publisher
    finally:
        await publisher.stop()
