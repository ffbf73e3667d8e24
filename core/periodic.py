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
SHORTEST = 0.1


def every(period: str | float, *, timeout: float | None = None) -> Callable[[F], F]:
    """Mark an async method of a controller, which takes no arguments, as periodic work.

    ``period`` is a text such as "500ms", "30s", "5m", "1h", "1d", or a number of seconds. Runs begin at multiples of it
    since the epoch, so that they stay where they are when the worker restarts. A run is cut off after ``timeout`` seconds,
    by default the period, 30 s at the least; while one lasts no other begins. Raises RouteError.
    """
    seconds = _seconds(period)
    if timeout is not None and not timeout > 0:
        raise RouteError(f"@every({period!r}): timeout={timeout!r} is not a positive number of seconds")

    def mark(method: F) -> F:
        if not inspect.iscoroutinefunction(cast("Any", method)):
            raise RouteError(f"@every({period!r}): {getattr(method, '__qualname__', method)} is not an async method")
        cast("Any", method).__every__ = (seconds, timeout or max(seconds, 30.0))
        return method

    return mark


def _seconds(period: str | float) -> float:
    if isinstance(period, str):
        found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)\s*", period)
        seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    else:
        seconds = float(period)
    if not SHORTEST <= seconds < float("inf"):
        raise RouteError(f"@every({period!r}): write a period such as '500ms', '30s', '5m', '1h' or '1d', at least 100ms")
    return seconds


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of periodic work: times are in seconds."""

    name: str
    call: Callable[[], Awaitable[Any]]
    period: float
    timeout: float


def jobs_of(controllers: Iterable[type[Controller]]) -> list[Job]:
    """Give the periodic work of ``controllers``, bound to this process's instances. Raises RouteError."""
    jobs = []
    for controller in controllers:
        for name, method in inspect.getmembers(controller, inspect.isfunction):
            marked = getattr(method, "__every__", None)
            if marked is not None:
                jobs.append(Job(f"{controller.__qualname__}.{name}", method.__get__(instance(controller)), *marked))
    return jobs


class Claims(Protocol):
    """Sees to it that one process does a piece of work at a time. Both raise what the storage raises."""

    async def take(self, name: str, slot: int, now: float, until: float) -> bool:
        """Say whether the run number ``slot`` of ``name`` is this process's to do; it may take from ``now`` to ``until``."""

    async def release(self, name: str, slot: int) -> None:
        """Take note that the run is over."""


class Periodic:
    """Does ``jobs`` at their times; without ``claims`` this process does every one of them."""

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
        """Begin."""
        self._tasks = [asyncio.create_task(self._keep(job), name=f"every {job.name}") for job in self._jobs]

    async def stop(self) -> None:
        """Begin no more, and cut off what runs."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def idle(self) -> None:
        """Wait until nothing runs."""
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
        """Log an error in full when it comes first, and in one line while it stays the same."""
        said = one_line(error) if not isinstance(error, TimeoutError) else f"it was cut off after {job.timeout:g} s"
        new = self._told.get(job.name) != said
        self._told[job.name] = said
        log.error("periodic work failed: %s [%s]", said, job.name, exc_info=error if new else None)
