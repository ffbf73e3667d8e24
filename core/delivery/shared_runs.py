"""Messages that run together, and those that have to run alone."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING

from core.delivery.doubt import Doubt
from core.handling.failures.outcome import again_after

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from core.delivery.verdict import Verdict
    from core.handling.delivery import Delivery
    from core.handling.dispatch import Dispatch

MAX_LOST = 5
"""Runs together in a row that lose against other transactions, before the messages run in halves."""
Keyed = tuple["Hashable", "Delivery"]
"""A message with its ordering key."""


class _Attempt:
    """Messages that are brought to their end together, by their places in order of receipt.

    - ``apart``: by place, the error of each message that failed and has to run alone, or None for one behind it.
    - ``held``: by ordering key, the place of its first message that failed. The key stays held for the whole attempt, so
      that nothing of it overtakes.
    """

    def __init__(self, taken: Sequence[Keyed]) -> None:
        self.taken = taken
        self.apart: dict[int, BaseException | None] = {}
        self.held: dict[Hashable, int] = {}

    def deliveries(self, places: Sequence[int]) -> list[Delivery]:
        """Return the messages at ``places``."""
        return [self.taken[place][1] for place in places]

    def put_apart(self, place: int, error: BaseException) -> None:
        """Have the message at ``place``, which failed with ``error``, run alone after the attempt. Its key is held."""
        self.apart[place] = error
        key, delivery = self.taken[place]
        # What it lost together with others is not counted as its own.
        delivery.again = 0
        if key is not None:
            self.held[key] = min(place, self.held.get(key, place))

    def free(self, places: Sequence[int]) -> list[int]:
        """Return those of ``places`` that may run now. Those behind a message that failed wait until after the attempt."""
        free = []
        for place in places:
            key = self.taken[place][0]
            if key is not None and place > self.held.get(key, place):
                self.apart.setdefault(place, None)
            elif place not in self.apart:
                free.append(place)
        return free


class SharedRuns(ABC):
    """Runs messages together, one run at a time, in order of receipt.

    What happens when a message fails:

    - The message runs alone from then on, by its route's retry policy, until it has its end.
    - Later messages with its ordering key are held back until then. After that they run together again, before all others.
    - All other messages go on running together. They do not wait for it.
    - Where nothing tells which message is to blame, the run is halved until it is known. So is a run that loses against
      other transactions again and again: who is told of it need not be to blame.

    The parameters:

    - ``most``: how many messages a run takes at most.
    - ``dispatch``: brings messages to their end that run alone.
    - ``ended``: is told of each message that has its end.
    """

    def __init__(self, most: int, dispatch: Dispatch, ended: Callable[[Delivery], None]) -> None:
        self._most = most
        self._dispatch = dispatch
        self._ended = ended
        # Handlers run in the context of the application, whoever brings in their message.
        self._context = copy_context()
        self._waiting: deque[Keyed] = deque()
        self._held: dict[Hashable, deque[Delivery]] = {}
        self._doubt = Doubt(dispatch.outage)
        self._task: asyncio.Task[None] | None = None
        self._alone: set[asyncio.Task[None]] = set()

    def put(self, key: Hashable, delivery: Delivery) -> None:
        """Put ``delivery`` behind the messages that wait for a run. No message holds it back where ``key`` is None."""
        self._waiting.append((key, delivery))
        self._start()

    def _start(self) -> None:
        if self._waiting and self._task is None and not self._dispatch.is_cut:
            self._task = asyncio.get_running_loop().create_task(self._run(), context=self._context.copy())

    async def _run(self) -> None:
        try:
            while self._waiting:
                taken = self._take()
                if taken:
                    await self._attempt(taken)
        finally:
            self._task = None

    def _take(self) -> list[Keyed]:
        """Return the messages of the next run, in order. Those whose key waits for a failed message are queued behind it."""
        taken: list[Keyed] = []
        while self._waiting and len(taken) < self._most:
            key, delivery = self._waiting.popleft()
            if key in self._held:
                self._held[key].append(delivery)
            elif self._dispatch.circuits.standing and self._dispatch.circuits.of(delivery) is not None:
                self._run_alone(key, delivery, None)
            elif delivery.refused is not None:
                delivery.attempt += 1
                self._run_alone(key, delivery, delivery.refused)
            else:
                taken.append((key, delivery))
        return taken

    async def _attempt(self, taken: list[Keyed]) -> None:
        """Bring all of ``taken`` to their end, except for those that have to run alone, and those behind them."""
        attempt = _Attempt(taken)
        self._doubt = Doubt(self._dispatch.outage)
        await self._settle(attempt, range(len(taken)))
        # Only now, behind the earlier ones of their keys, which ran again meanwhile.
        for place in sorted(attempt.apart):
            key, delivery = taken[place]
            error = attempt.apart[place]
            if error is not None:
                self._run_alone(key, delivery, error)
            elif key in self._held:
                self._held[key].append(delivery)
            else:
                self._waiting.append((key, delivery))

    async def _settle(self, attempt: _Attempt, places: Sequence[int]) -> None:
        """Bring the messages at ``places`` to their end, or put them apart."""
        while places := attempt.free(places):
            verdict = await self._together([attempt.taken[place] for place in places])
            for index, error in verdict.blamed.items():
                attempt.put_apart(places[index], error)
            left = [place for index, place in enumerate(places) if index not in verdict.blamed]
            if verdict.committed:
                self._doubt.passed()
                for delivery in attempt.deliveries(left):
                    self._dispatch.done(delivery)
                    self._ended(delivery)
                return
            if verdict.failure is not None and len(places) == 1:
                attempt.put_apart(places[0], verdict.failure)
                return
            self._uncount(attempt.deliveries(left))
            places = left
            if verdict.failure is not None and left:
                middle = (len(left) + 1) // 2
                await self._settle(attempt, left[:middle])
                places = left[middle:]

    @abstractmethod
    async def _together(self, taken: list[Keyed]) -> Verdict:
        """Run ``taken`` together, until they meet no fault of the infrastructure. Return what came of it."""

    @abstractmethod
    async def _deliver(self, delivery: Delivery, error: BaseException | None) -> None:
        """Bring ``delivery`` to its end by runs of its own. It failed with ``error``, or has not run yet."""

    async def _lost(self, deliveries: Sequence[Delivery]) -> bool:
        """Wait until ``deliveries``, whose transaction lost against another one, run again. That run does not count.

        Return False where it has lost too often, so that they are to be told apart.
        """
        first = deliveries[0]
        seconds = again_after(first.again)
        if first.again >= MAX_LOST or seconds is None:
            self._dispatch.outage.answered(first)
            first.again = 0
            return False
        self._uncount(deliveries)
        first.again += 1
        await asyncio.sleep(seconds)
        return True

    @staticmethod
    def _uncount(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            delivery.attempt -= 1

    def _run_alone(self, key: Hashable, delivery: Delivery, error: BaseException | None) -> None:
        """Run ``delivery`` alone, which failed with ``error``, or has not run yet.

        Hold back later messages with its key until its end.
        """
        if key is not None and key in self._held:
            # An earlier message with its key failed too: this one runs again with the others, behind that one.
            self._held[key].append(delivery)
            return
        if key is not None:
            behind = self._held[key] = deque()
            delivery.behind = behind
        task = asyncio.get_running_loop().create_task(self._finish(key, delivery, error), context=self._context.copy())
        self._alone.add(task)
        task.add_done_callback(self._alone.discard)

    async def _finish(self, key: Hashable, delivery: Delivery, error: BaseException | None) -> None:
        await self._deliver(delivery, error)
        self._ended(delivery)
        for behind in reversed(self._held.pop(key, ())):
            self._waiting.appendleft((key, behind))
        self._start()

    async def cut(self) -> None:
        """Cancel everything that runs or waits. Return when it has ended."""
        tasks = {task for task in (self._task, *self._alone) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
