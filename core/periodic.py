"""Work that comes again and again: ``@every("30s")`` on a method of a controller, done by one worker process at a time."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from core.controller import Controller, instance
from core.errors import RouteError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from core.runtime.clock import Clock

log = logging.getLogger("routemq.periodic")

F = TypeVar("F", bound="Callable[..., Awaitable[Any]]")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
MIN_PERIOD = 0.1
"""Seconds."""


def every(period: str | float, *, timeout: float | None = None) -> Callable[[F], F]:
    """Mark an async method of a controller as periodic work. The method takes no arguments.

    - ``period``: the time from the start of one run to the start of the next. A text such as "500ms", "30s", "5m", "1h" or
      "1d", or a number of seconds, 0.1 at the least.
    - ``timeout``: seconds after which a run is cut off. By default it is the period, 30 at the least.

    Runs begin at multiples of the period since the epoch (1970-01-01, 00:00 UTC), so that a restart of the worker does not
    move them. While one run lasts, no other begins.

    Raise RouteError for a period or a timeout out of range, and for a method that is not async.
    """
    seconds = _seconds(period)
    if timeout is not None and not timeout > 0:
        raise RouteError(f"@every({period!r}): timeout={timeout!r} is not a positive number of seconds")

    def mark(method: F) -> F:
        if not inspect.iscoroutinefunction(cast("Any", method)):
            name = getattr(method, "__qualname__", method)
            raise RouteError(f"@every({period!r}): {name} is not an async method. Write it with async def")
        cast("Any", method).__every__ = (seconds, timeout or max(seconds, 30.0))
        return method

    return mark


def _seconds(period: str | float) -> float:
    if isinstance(period, str):
        found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)\s*", period)
        seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    else:
        seconds = float(period)
    if not MIN_PERIOD <= seconds < float("inf"):
        raise RouteError(
            f"@every({period!r}): that is not a period. Write one such as '500ms', '30s', '5m', '1h' or '1d', at least 100ms"
        )
    return seconds


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of periodic work.

    - ``name``: its name in the log and in ``Claims``.
    - ``call``: runs it once.
    - ``period``: seconds from the start of one run to the start of the next.
    - ``timeout``: seconds after which a run is cut off.
    """

    name: str
    call: Callable[[], Awaitable[Any]]
    period: float
    timeout: float


def jobs_of(controllers: Iterable[type[Controller]]) -> list[Job]:
    """Return the periodic work of ``controllers``, bound to the application's instances of them.

    Raise RouteError for a controller that cannot be made without arguments.
    """
    jobs = []
    for controller in controllers:
        for name, method in inspect.getmembers(controller, inspect.isfunction):
            marked = getattr(method, "__every__", None)
            if marked is not None:
                jobs.append(Job(f"{controller.__qualname__}.{name}", method.__get__(instance(controller)), *marked))
    return jobs


class Claims(Protocol):
    """Decides which process does a run, so that one process does a piece of work at a time.

    Both methods raise what the storage raises.
    """

    async def take(self, name: str, slot: int, now: float, until: float) -> bool:
        """Return whether this process is to do the run number ``slot`` of ``name``.

        Times are in seconds since the epoch. If it is, no other process begins a run of ``name`` before ``until``, or before
        ``release``.
        """

    async def release(self, name: str, slot: int) -> None:
        """Record that the run number ``slot`` of ``name`` is over."""


class Periodic:
    """Runs ``jobs`` at their times.

    - ``jobs``: the periodic work.
    - ``clock``: tells the time, and waits for the next run.
    - ``claims``: decides which process does a run. Without it, this process does every run.
    """

    def __init__(self, jobs: Iterable[Job], clock: Clock, claims: Claims | None) -> None:
        self._jobs = tuple(jobs)
        self._clock = clock
        self._claims = claims
        self._tasks: list[asyncio.Task[None]] = []
        self._told: dict[str, str] = {}
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def start(self) -> None:
        """Start a task for each piece of work."""
        self._tasks = [asyncio.create_task(self._keep(job), name=f"every {job.name}") for job in self._jobs]

    async def stop(self) -> None:
        """Begin no more runs, and cut off those under way."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def idle(self) -> None:
        """Wait until no run is under way."""
        await self._idle.wait()

    async def _keep(self, job: Job) -> None:
        slot = int(self._clock.time() / job.period)
        while True:
            slot = max(slot + 1, int(self._clock.time() / job.period))
            await self._clock.sleep(max(slot * job.period - self._clock.time(), 0))
            self._busy += 1
            self._idle.clear()
            try:
                await self._run(job, slot)
            finally:
                self._busy -= 1
                if not self._busy:
                    self._idle.set()

    async def _run(self, job: Job, slot: int) -> None:
        try:
            now = self._clock.time()
            if self._claims is not None and not await self._claims.take(job.name, slot, now, now + job.timeout):
                return
            try:
                async with asyncio.timeout(job.timeout):
                    await job.call()
            finally:
                if self._claims is not None:
                    await self._claims.release(job.name, slot)
        except Exception as error:  # noqa: BLE001 - what one run raises costs that run alone
            self._tell(job, error)
        else:
            self._told.pop(job.name, None)

    def _tell(self, job: Job, error: Exception) -> None:
        """Log ``error`` with its traceback when it comes first, and in one line for as long as it stays the same."""
        said = one_line(error) if not isinstance(error, TimeoutError) else f"it was cut off after {job.timeout:g} s"
        new = self._told.get(job.name) != said
        self._told[job.name] = said
        log.error("periodic work failed: %s [%s]", said, job.name, exc_info=error if new else None)
