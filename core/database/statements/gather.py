"""Gathers the calls that wait at the same moment, from any number of handlers, into few statements in one transaction.

One gather runs at a time. So it grows with the load, a single call does not wait, and there is no timer.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from core.database.fault import Fault, fault_of, is_unreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncSession

    Begin = Callable[[], AbstractAsyncContextManager[AsyncSession]]
    Turn = Callable[[], Awaitable[None]]


MAX_ROWS = 500
"""Calls that one statement carries out."""
MAX_ALONE = 3
"""Single calls in a row that meet a fault of the infrastructure, after which no more are tried."""
MAX_STATEMENTS = 1024
"""Statements of each class that are kept, so that they are not made anew for each call."""


class Statement(ABC):
    """A statement that carries out many calls at once. Calls of equal statements are gathered.

    Each call has a value, such as the row that is inserted or the primary key that is looked for.
    """

    @abstractmethod
    async def run(self, session: AsyncSession, values: Sequence[Any]) -> Sequence[Any]:
        """Run the statement for all ``values`` in the transaction of ``session``. Return their results in the same order."""


class KeyedStatement(Statement):
    """A statement whose calls have a key. Calls with the same key are carried out one after the other."""

    @abstractmethod
    def key(self, value: Any) -> Hashable:
        """Return the key of the call with ``value``."""

    @abstractmethod
    def order(self, values: Sequence[Any]) -> Sequence[int]:
        """Return the order in which ``values`` are passed to ``run``, as indexes.

        Several workers that lock the same rows in different orders would deadlock.
        """


class _Call(NamedTuple):
    value: Any
    result: asyncio.Future[Any]


class _Part(NamedTuple):
    """The calls of a gather that one statement carries out."""

    statement: Statement
    calls: list[_Call]


class _Queue:
    """The calls of one event loop that wait, and the task that carries them out."""

    def __init__(self, begin: Begin, turn: Turn | None) -> None:
        self._begin = begin
        self._turn = turn
        self._waiting: dict[Statement, deque[_Call]] = {}
        self._task: asyncio.Task[None] | None = None
        # How many transactions were committed, and how many that were when one last met a fault of the infrastructure.
        self._committed = 0
        self._refused: int | None = None
        self._alone = 0

    def put(self, loop: asyncio.AbstractEventLoop, statement: Statement, value: Any) -> asyncio.Future[Any]:
        result: asyncio.Future[Any] = loop.create_future()
        calls = self._waiting.get(statement)
        if calls is None:
            calls = self._waiting[statement] = deque()
        calls.append(_Call(value, result))
        if self._task is None:
            # The task has an empty context, because the context of the first caller would outlive its call.
            self._task = loop.create_task(self._run(), name="gather", context=Context())
        return result

    async def idle(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])

    def cut(self) -> None:
        self._cancel_waiting()
        if self._task is not None:
            self._task.cancel()

    def _cancel_waiting(self) -> None:
        for calls in self._waiting.values():
            _cancel(calls)
        self._waiting.clear()

    async def _run(self) -> None:
        parts: list[_Part] = []
        try:
            while self._waiting:
                if self._turn is not None:
                    await self._turn()
                parts = self._take()
                if parts:
                    await self._carry_out(parts)
        except asyncio.CancelledError:
            for part in parts:
                _cancel(part.calls)
            self._cancel_waiting()
            raise
        finally:
            self._task = None

    def _take(self) -> list[_Part]:
        """Take the waiting calls in their order, at most MAX_ROWS for each statement. Leave cancelled calls out."""
        parts = []
        for statement, waiting in list(self._waiting.items()):
            taken = _take_keyed(statement, waiting) if isinstance(statement, KeyedStatement) else _take_first(waiting)
            if not waiting:
                del self._waiting[statement]
            if taken:
                parts.append(_Part(statement, taken))
        return parts

    async def _carry_out(self, parts: list[_Part], *, halved: bool = False) -> None:
        """Run ``parts`` in one transaction. If that fails, run smaller groups, so that only the calls at fault fail.

        A fault of the infrastructure fails all calls. If the database has answered others between two of them, the second
        one may be that of one call alone, and smaller groups are run.
        """
        results: list[tuple[asyncio.Future[Any], Any]] = []
        try:
            async with self._begin() as session:
                for statement, calls in parts:
                    values = [call.value for call in calls]
                    if isinstance(statement, KeyedStatement):
                        order = statement.order(values)
                        found = await statement.run(session, [values[index] for index in order])
                        results += [(calls[index].result, one) for index, one in zip(order, found, strict=True)]
                    else:
                        found = await statement.run(session, values)
                        results += [(call.result, one) for call, one in zip(calls, found, strict=True)]
        except Exception as error:  # noqa: BLE001 - the callers get it
            groups = _split(parts)
            if not self._splits(parts, error, halved=halved) or not groups:
                for part in parts:
                    for call in part.calls:
                        if not call.result.done():
                            call.result.set_exception(error)
                return
            for group in groups:
                await self._carry_out(group, halved=True)
        else:
            self._committed += 1
            self._alone = 0
            for result, one in results:
                if not result.done():
                    result.set_result(one)

    def _splits(self, parts: list[_Part], error: Exception, *, halved: bool) -> bool:
        """Return whether ``parts``, which met ``error`` together, are to run in smaller groups.

        ``halved`` says that they are such a group already.
        """
        fault = fault_of(error)
        if fault is Fault.SCHEMA:
            # A missing table is no fault of the statements on other tables.
            return len(parts) > 1
        if fault is not Fault.INFRASTRUCTURE:
            return fault is not Fault.SETUP
        before, self._refused = self._refused, self._committed
        if halved:
            self._alone += len(parts) == len(parts[0].calls) == 1
            return self._alone < MAX_ALONE
        return before is not None and self._committed > before and not is_unreachable(error)


def _cancel(calls: Iterable[_Call]) -> None:
    for call in calls:
        call.result.cancel()


def _take_first(waiting: deque[_Call]) -> list[_Call]:
    """Take the first MAX_ROWS calls out of ``waiting``."""
    taken: list[_Call] = []
    while waiting and len(taken) < MAX_ROWS:
        call = waiting.popleft()
        if not call.result.done():
            taken.append(call)
    return taken


def _take_keyed(statement: KeyedStatement, waiting: deque[_Call]) -> list[_Call]:
    """Take the first MAX_ROWS calls with different keys out of ``waiting``. The others keep their order in it."""
    taken: list[_Call] = []
    left: list[_Call] = []
    keys = set()
    while waiting and len(taken) < MAX_ROWS:
        call = waiting.popleft()
        if call.result.done():
            continue
        key = statement.key(call.value)
        if key in keys:
            left.append(call)
            continue
        keys.add(key)
        taken.append(call)
    waiting.extendleft(reversed(left))
    return taken


def _split(parts: list[_Part]) -> list[list[_Part]]:
    """Return ``parts`` in smaller groups: each part by itself, or the only part in halves. A single call has no groups."""
    if len(parts) > 1:
        return [[part] for part in parts]
    statement, calls = parts[0]
    if len(calls) == 1:
        return []
    middle = len(calls) // 2
    return [[_Part(statement, calls[:middle])], [_Part(statement, calls[middle:])]]


class Gather:
    """Gathers the calls of each event loop.

    - ``begin``: opens the transaction in which a gather runs.
    - ``turn``: waits until a gather may run, before it takes the calls that wait. By default it may at once.
    """

    def __init__(self, begin: Begin, turn: Turn | None = None) -> None:
        self._begin = begin
        self._turn = turn
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = WeakKeyDictionary()

    def call(self, statement: Statement, value: Any) -> asyncio.Future[Any]:
        """Have ``statement`` carry out ``value`` with the other calls that wait. Return the future of its result.

        The future raises the error of its own value. An outage is raised by all futures of the gather.
        """
        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is None:
            queue = self._queues[loop] = _Queue(self._begin, self._turn)
        return queue.put(loop, statement, value)

    async def idle(self) -> None:
        """Wait until no call of this event loop is under way."""
        queue = self._queues.get(asyncio.get_running_loop())
        if queue is not None:
            await queue.idle()

    def cut(self) -> None:
        """Cancel the calls of this event loop. The statement under way is given up, and with it its connection."""
        queue = self._queues.get(asyncio.get_running_loop())
        if queue is not None:
            queue.cut()
