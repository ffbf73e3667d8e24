"""Waiting for conditions."""

from __future__ import annotations

import asyncio
import inspect
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


@overload
async def until(condition: Callable[[], Awaitable[T | None]], seconds: float = 20, what: str = "") -> T: ...


@overload
async def until(condition: Callable[[], T | None], seconds: float = 20, what: str = "") -> T: ...


async def until(condition: Callable[[], Any], seconds: float = 20, what: str = "") -> Any:
    """Wait until ``condition`` gives something true, and give that; it may be a coroutine function."""
    deadline = monotonic() + seconds
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert monotonic() < deadline, f"waited {seconds} s in vain{' for ' + what if what else ''}"
        await asyncio.sleep(0.01)


async def soon(awaited: Any, seconds: float = 60) -> Any:
    """Return what ``awaited`` gives. The bound is generous, so that only what hangs misses it, and no busy machine."""
    async with asyncio.timeout(seconds):
        return await awaited
