"""Gathers the calls that wait at the same moment, from any number of handlers, into few statements in one transaction.

One gather runs at a time, so it grows with the load, costs nothing when idle, and waits for no timer.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from core.database.fault import Fault, fault_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncSession


MAX_ROWS = 500
"""Rows of one kind in one statement."""


class Kind(ABC):
    """What calls have in common that can go out as one statement; equal kinds are gathered.

    ``mingles`` says that calls may have anything in common, and go out in the order they came in.
    """

    mingles = False

    @abstractmethod
    def apart(self, value: Any) -> Hashable:
        """Give what two calls in one statement must not have in common; not asked where ``mingles``."""

    def order(self, values: Sequence[Any]) -> list[int]:
        """Give the order in which the rows are to be touched, so that several workers do not deadlock: as indexes."""
        return list(range(len(values)))

    @abstractmethod
    async def run(self, session: AsyncSession, values: Sequence[Any]) -> Sequence[Any]:
        """Run one statement for all ``values`` in the transaction of ``session``; give a result for each, in their order."""


class _Call(NamedTuple):
    value: Any
    result: asyncio.Future[Any]


class _Part(NamedTuple):
    kind: Kind
    calls: list[_Call]


class _Line:
    """The calls of one event loop: those that wait, and the task that carries them out."""

    def __init__(self, begin: Callable[[], AbstractAsyncContextManager[AsyncSession]]) -> None:
        self._begin = begin
        self._waiting: dict[Kind, deque[_Call]] = {}
        self._task: asyncio.Task[None] | None = None

    def put(self, loop: asyncio.AbstractEventLoop, kind: Kind, value: Any) -> asyncio.Future[Any]:
        result: asyncio.Future[Any] = loop.create_future()
        calls = self._waiting.get(kind)
        if calls is None:
            calls = self._waiting[kind] = deque()
        calls.append(_Call(value, result))
        if self._task is None:
            # A context of its own: that of the first caller would outlive its call.
            self._task = loop.create_task(self._run(), name="gather", context=Context())
        return result

    async def idle(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._waiting:
                parts = self._take()
                if parts:
                    await self._carry_out(parts)
        finally:
            self._task = None

    def _take(self) -> list[_Part]:
        """Take what waits, at most MAX_ROWS of each kind, in order; callers that were cancelled meanwhile are left out."""
        parts = []
        for kind, waiting in list(self._waiting.items()):
            taken: list[_Call] = []
            if kind.mingles:
                while waiting and len(taken) < MAX_ROWS:
                    call = waiting.popleft()
                    if not call.result.done():
                        taken.append(call)
                if not waiting:
                    del self._waiting[kind]
                if taken:
                    parts.append(_Part(kind, taken))
                continue
            kept: deque[_Call] = deque()
            seen = set()
            while waiting and len(taken) < MAX_ROWS:
                call = waiting.popleft()
                if call.result.done():
                    continue
                apart = kind.apart(call.value)
                if apart in seen:
                    kept.append(call)
                    continue
                seen.add(apart)
                taken.append(call)
            waiting.extendleft(reversed(kept))
            if not waiting:
                del self._waiting[kind]
            if taken:
                parts.append(_Part(kind, taken))
        return parts

    async def _carry_out(self, parts: list[_Part]) -> None:
        """Run ``parts`` in one transaction; where that fails, run them apart, so that only those at fault see the error."""
        results = []
        try:
            async with self._begin() as session:
                for kind, calls in parts:
                    if kind.mingles:
                        found = await kind.run(session, [call.value for call in calls])
                        results += [(call.result, one) for call, one in zip(calls, found, strict=True)]
                        continue
                    order = kind.order([call.value for call in calls])
                    found = await kind.run(session, [calls[index].value for index in order])
                    results += [(calls[index].result, one) for index, one in zip(order, found, strict=True)]
        except Exception as error:  # noqa: BLE001 - it goes to those who called
            halves = _apart(parts)
            if not halves or fault_of(error) in {Fault.INFRASTRUCTURE, Fault.SETUP}:
                for part in parts:
                    for call in part.calls:
                        if not call.result.done():
                            call.result.set_exception(error)
                return
            for half in halves:
                await self._carry_out(half)
        else:
            for result, one in results:
                if not result.done():
                    result.set_result(one)


def _apart(parts: list[_Part]) -> list[list[_Part]]:
    """Give ``parts`` in smaller groups: the kinds by themselves, or one kind in halves; none where it is a single call."""
    if len(parts) > 1:
        return [[part] for part in parts]
    kind, calls = parts[0]
    if len(calls) == 1:
        return []
    middle = len(calls) // 2
    return [[_Part(kind, calls[:middle])], [_Part(kind, calls[middle:])]]


class Gather:
    """Gathers calls, for each event loop by itself; ``begin`` opens the transaction that a gather runs in."""

    def __init__(self, begin: Callable[[], AbstractAsyncContextManager[AsyncSession]]) -> None:
        self._begin = begin
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, _Line] = WeakKeyDictionary()

    def call(self, kind: Kind, value: Any) -> asyncio.Future[Any]:
        """Have ``value`` carried out with others of its ``kind``; give what will have its result, or what its row raises."""
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            line = self._lines[loop] = _Line(self._begin)
        return line.put(loop, kind, value)

    async def idle(self) -> None:
        """Wait until nothing of this event loop is under way."""
        line = self._lines.get(asyncio.get_running_loop())
        if line is not None:
            await line.idle()


MAX_KEY_SETS = 1024
