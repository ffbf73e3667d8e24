"""Virtual time: a world of events, and event loops whose clock jumps to whatever comes next."""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context

    from tests.simulation.world.network import Network

MAX_TURNS = 200_000
"""Turns of all event loops in one run. More of them at one time mean that something spins."""
MAX_GHOST_TURNS = 2_000


class StuckError(Exception):
    """The run does not come to an end."""


class World:
    """Virtual time, what happens when, and what is told of it.

    Everything outside of the processes under test is an event here. There is no task, no thread and no socket.

    ``now`` is in seconds since the start of the run.
    """

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = Random(seed)
        self.loops: list[VirtualLoop] = []
        self.told: list[tuple[float, str, str]] = []
        self.unhandled: list[str] = []
        self.turns = 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0

    def at(self, when: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call ``call`` at the time ``when``."""
        self._number += 1
        heapq.heappush(self._events, (max(when, self.now), self._number, call, arguments))

    def after(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call ``call`` in ``seconds``."""
        self.at(self.now + seconds, call, *arguments)

    def tell(self, who: str, what: str) -> None:
        """Tell what happened, for the story and for the digest of the run."""
        self.told.append((self.now, who, what))

    def digest(self) -> str:
        """Return a word that is the same for two runs if, and only if, the same happened at the same times."""
        words = blake2b(digest_size=16)
        for when, who, what in self.told:
            words.update(f"{when!r} {who} {what}\n".encode())
        return words.hexdigest()

    def step(self, until: float) -> bool:
        """Let one turn happen, or go on to the next event. Return False where nothing more comes by ``until``."""
        ran = False
        for loop in self.loops:
            if loop.is_ready:
                ran = True
                self.turns += 1
                loop.turn()
        if ran:
            if self.turns > MAX_TURNS:
                raise StuckError(f"{MAX_TURNS:,} turns of the event loop")
            return True
        when = min((timer for timer in (loop.next_timer() for loop in self.loops) if timer is not None), default=None)
        if self._events and (when is None or self._events[0][0] <= when):
            if self._events[0][0] > until:
                return False
            self.now, _, call, arguments = heapq.heappop(self._events)
            call(*arguments)
            return True
        if when is None or when > until:
            return False
        self.now = max(self.now, when)
        for loop in self.loops:
            loop.wake(self.now)
        return True


class NumberedTask(asyncio.Task[Any]):
    """A task whose hash is its number, so that sets of tasks have the same order in every run."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, loop: VirtualLoop, context: Context | None = None) -> None:
        loop.numbered += 1
        self.number = loop.numbered
        super().__init__(coro, loop=loop, context=context)

    def __hash__(self) -> int:
        return self.number


def _task(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any], **options: Any
) -> NumberedTask:
    assert isinstance(loop, VirtualLoop)
    return NumberedTask(coro, loop=loop, **options)  # type: ignore[arg-type]


class VirtualLoop(asyncio.BaseEventLoop):
    """The event loop of one process. It waits for nothing: the world turns it, and moves the time.

    - ``world``: tells the time.
    - ``network``: where connections lead to.

    ``fuse`` is the number of callbacks that still run before ``burnt`` is called.
    """

    def __init__(self, world: World, network: Network) -> None:
        super().__init__()
        self._world = world
        self._network = network
        self._ahead = 0.0
        self.numbered = 0
        self.dead = False
        self.fuse: int | None = None
        self.burnt: Callable[[], None] = lambda: None
        self.set_debug(False)
        self.set_task_factory(_task)
        self.set_exception_handler(self._unhandled)
        world.loops.append(self)

    def time(self) -> float:
        """Return the virtual time."""
        return self._world.now + self._ahead

    @property
    def is_ready(self) -> bool:
        """Whether a callback waits for its turn."""
        return bool(self._ready)  # type: ignore[attr-defined]

    def turn(self) -> None:
        """Run the callbacks that are ready now, as far as the process lives."""
        ready: Any = self._ready  # type: ignore[attr-defined]
        before = events._get_running_loop()
        events._set_running_loop(self)
        try:
            for _ in range(len(ready)):
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
                if self.fuse is not None and not self.dead:
                    self.fuse -= 1
                    if self.fuse < 0:
                        self.fuse = None
                        self.burnt()
                        return
        finally:
            events._set_running_loop(before)

    def next_timer(self) -> float | None:
        """Return when the next timer is due. Return None where there is none."""
        scheduled: Any = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        return scheduled[0]._when if scheduled else None

    def wake(self, now: float) -> None:
        """Make the timers ready that are due at ``now``."""
        scheduled: Any = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._when <= now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            self._ready.append(handle)  # type: ignore[attr-defined]

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        """Connect to the broker by way of the simulated network."""
        return await self._network.connect(self, protocol_factory)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """Run ``func`` in the loop, a millisecond later: there are no threads."""
        future = self.create_future()

        def run() -> None:
            if future.done():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:
                future.set_exception(error)

        self.call_later(0.001, run)
        return future

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # What is only told when an object is freed comes at no certain time.
        if not self.dead and "never retrieved" not in context["message"] and "destroyed" not in context["message"]:
            self._world.unhandled.append(f"{context['message']}: {context.get('exception')!r}")

    # -- the end -------------------------------------------------------------------------------------------------------

    def bury(self) -> None:
        """Let every task of a dead process run out. Nothing that it does is seen by anybody: its world has ended."""
        self.dead = True
        if self in self._world.loops:
            self._world.loops.remove(self)
        for _ in range(20):
            tasks = sorted(
                (task for task in asyncio.all_tasks(self) if isinstance(task, NumberedTask)), key=lambda task: task.number
            )
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            for _ in range(MAX_GHOST_TURNS):
                if not self.is_ready:
                    timer = self.next_timer()
                    if timer is None or all(task.done() for task in tasks):
                        break
                    self._ahead = max(timer - self._world.now, 0.0)
                    self.wake(timer)
                self.turn()
        for left in asyncio.all_tasks(self):
            left._log_destroy_pending = False  # type: ignore[attr-defined]
        self._ready.clear()  # type: ignore[attr-defined]
        self._scheduled.clear()  # type: ignore[attr-defined]
        self.close()
