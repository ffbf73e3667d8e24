"""Cuts off handlers that run for too long. The others pay next to nothing for that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from core.handling.waiting import awaited_by

if TYPE_CHECKING:
    from core.handling.atomic_run import AtomicRun
    from core.handling.delivery import Delivery
    from core.handling.waiting import Awaited

# A handler that swallowed its cancellation is cancelled again after this many seconds.
AGAIN = 1.0


class Run:
    """One run of a handler.

    - ``delivery``: the message that is handled.
    - ``part``: its part of a transaction. None where each of its calls stands by itself.
    - ``waited_for``: what it waited for when it was cut off, if that is not its own fault.
    - ``task``: the task that runs the handler.
    - ``deadline``: when it is cut off, by the clock of the event loop.
    - ``runs``: the runs with the same timeout, this one included, in order of their deadlines.
    """

    __slots__ = ("deadline", "delivery", "part", "runs", "task", "waited_for")

    def __init__(
        self, delivery: Delivery, part: AtomicRun | None, task: asyncio.Task[None], deadline: float, runs: dict[Run, None]
    ) -> None:
        self.delivery = delivery
        self.part = part
        self.task = task
        self.deadline = deadline
        self.runs = runs
        self.waited_for: Awaited | None = None

    def end(self) -> None:
        """Stop the clock of this run."""
        self.runs.pop(self, None)


class Deadlines:
    """The runs under way, by timeout. Those with the same timeout are in order of their deadlines by themselves.

    So a run costs two dictionary operations, and one timer is enough for all runs with the same timeout. There are as many
    timers as routes have different timeouts.
    """

    def __init__(self) -> None:
        self._runs: dict[float, dict[Run, None]] = {}
        self._timers: dict[float, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        """Return the number of runs under way."""
        return sum(map(len, self._runs.values()))

    @property
    def ticking(self) -> bool:
        """Whether a timer waits for a deadline."""
        return bool(self._timers)

    def begin(self, delivery: Delivery, timeout: float, part: AtomicRun | None = None) -> Run:
        """Start the clock of a run in the current task, which is cancelled after ``timeout`` seconds.

        A run that had to wait for its transaction to begin, because others were under way, gets its time once more.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - only ever called from a lane
        runs = self._runs.get(timeout)
        if runs is None:
            runs = self._runs[timeout] = {}
        run = Run(delivery, part, task, loop.time() + timeout, runs)
        runs[run] = None
        if timeout not in self._timers:
            self._timers[timeout] = loop.call_at(run.deadline, self._look, timeout)
        return run

    def _look(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        runs = self._runs[timeout]
        now = loop.time()
        late = []
        for run in runs:
            if run.deadline > now:
                break
            late.append(run)
        for run in late:
            if run.part is None or not run.part.is_to_have_more_time(timeout):
                if not run.delivery.timed_out:
                    run.waited_for = awaited_by(run.task)
                run.delivery.timed_out = True
                run.task.cancel()
            # Move it to the end: it is cancelled again if its handler swallows the cancellation.
            del runs[run]
            run.deadline = now + max(timeout, AGAIN)
            runs[run] = None
        if runs:
            self._timers[timeout] = loop.call_at(next(iter(runs)).deadline, self._look, timeout)
        else:
            del self._timers[timeout]

    def stop(self) -> None:
        """Stop all clocks."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._runs.clear()
