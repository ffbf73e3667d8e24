"""What a task waits for at this moment. It is asked when a deadline passes, and costs nothing before."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


class Awaited(Enum):
    """What is waited for that no message is to blame for, in words for a sentence."""

    DATABASE = "the database"
    BROKER = "the broker"


_DRIVERS = frozenset({"sqlalchemy", "asyncpg", "aiosqlite"})
_DATABASE = ("core.model", "core.database.")
# Not the room as a whole: who waits in ``answers`` waits for a device.
_BROKER = frozenset({"core.session.session", "core.session.publishing", "core.session.filters"})
_MAX_DEPTH = 100
"""Calls that are followed from one task on, and tasks that wait for each other."""


def awaited_by(task: asyncio.Task[Any]) -> Awaited | None:
    """Return what ``task``, or a task that it awaits, waits for. None for whatever is neither database nor broker.

    The database is waited for within a call of ``Model`` or of a session. The broker is waited for while something is
    published: until there is a connection, and until the broker acknowledges.

    Each coroutine knows what it awaits, and each frame the module that it belongs to. A task whose code is running, or
    that has ended, waits for nothing. What is behind ``asyncio.shield``, or in an asynchronous generator of the
    application's own, is not seen.
    """
    seen: set[asyncio.Task[Any]] = set()
    tasks = [task]
    while tasks and len(seen) < _MAX_DEPTH:
        one = tasks.pop()
        if one in seen or one.done():
            continue
        seen.add(one)
        for frame in _frames(one.get_coro()):
            module = str(frame.f_globals.get("__name__"))
            if module.startswith(_DATABASE) or module.partition(".")[0] in _DRIVERS:
                return Awaited.DATABASE
            if module in _BROKER:
                return Awaited.BROKER
            if module.startswith("asyncio."):
                # The tasks of a TaskGroup, or those that asyncio.wait and the like were given.
                for value in list(frame.f_locals.values()):
                    tasks += _tasks_in(value)
        tasks += _tasks_in(getattr(one, "_fut_waiter", None))
    return None


def _frames(awaited: Any) -> Iterator[FrameType]:
    """Yield the frames of ``awaited`` and of all that it awaits, from the outside to the inside."""
    for _ in range(_MAX_DEPTH):
        frame = next(
            (found for name in ("cr_frame", "gi_frame", "ag_frame") if (found := getattr(awaited, name, None))), None
        )
        if frame is None:
            return
        yield frame
        within = next(
            (found for name in ("cr_await", "gi_yieldfrom", "ag_await") if (found := getattr(awaited, name, None))), None
        )
        if frame.f_globals.get("__name__") == "contextlib" and not hasattr(within, "cr_frame"):
            # ``async with`` awaits a step of a generator, which does not say whose.
            within = getattr(frame.f_locals.get("self"), "gen", None)
        awaited = within


def _tasks_in(value: Any) -> list[asyncio.Task[Any]]:
    """Return the tasks that ``value`` is, holds or gathers."""
    if isinstance(value, asyncio.Task):
        return [value]
    if isinstance(value, asyncio.TaskGroup):
        value = getattr(value, "_tasks", ())
    elif isinstance(value, asyncio.Future):
        # Those of asyncio.gather.
        value = getattr(value, "_children", ())
    if isinstance(value, Collection) and not isinstance(value, str | bytes):
        return [one for one in list(value)[:_MAX_DEPTH] if isinstance(one, asyncio.Task)]
    return []
