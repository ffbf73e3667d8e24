"""What the code under test takes for time and chance. For the length of a run, both come from the world."""

from __future__ import annotations

import random
import secrets
import sys
import time
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.world.loop import World

EPOCH = 1_700_000_000.0
"""The time in seconds since 1970 at which each run begins."""
_BOOT = 10_000.0

_world: World | None = None
_real_time, _real_monotonic, _real_perf_counter = time.time, time.monotonic, time.perf_counter
_real_uniform, _real_random, _real_uuid4 = random.uniform, random.random, uuid.uuid4
_real_bytes = secrets.token_bytes


def _time() -> float:
    return _real_time() if _world is None else EPOCH + _world.now


def _monotonic() -> float:
    return _real_monotonic() if _world is None else _BOOT + _world.now


def _perf_counter() -> float:
    return _real_perf_counter() if _world is None else _BOOT + _world.now


def _uniform(a: float, b: float) -> float:
    return _real_uniform(a, b) if _world is None else _world.random.uniform(a, b)


def _random() -> float:
    return _real_random() if _world is None else _world.random.random()


def _token_bytes(nbytes: int | None = None) -> bytes:
    return _real_bytes(nbytes) if _world is None else _world.random.randbytes(nbytes or 32)


def _token_hex(nbytes: int | None = None) -> str:
    return _token_bytes(nbytes).hex()


def _uuid4() -> uuid.UUID:
    return _real_uuid4() if _world is None else uuid.UUID(bytes=_world.random.randbytes(16), version=4)


class _AnyDatetime(type):
    """Lets every datetime be an instance of the class that stands in for it."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, datetime)


class _Datetime(datetime, metaclass=_AnyDatetime):
    """Stands in for datetime. What it makes are plain datetimes."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.fromtimestamp(_time(), tz)

    @classmethod
    def utcnow(cls) -> datetime:  # type: ignore[override]
        return datetime.fromtimestamp(_time(), UTC).replace(tzinfo=None)

    @classmethod
    def fromtimestamp(cls, timestamp: float, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.fromtimestamp(timestamp, tz)

    @classmethod
    def fromisoformat(cls, date_string: str) -> datetime:  # type: ignore[override]
        return datetime.fromisoformat(date_string)


_STAND_INS: dict[int, Any] = {
    id(_real_time): _time,
    id(_real_monotonic): _monotonic,
    id(_real_perf_counter): _perf_counter,
    id(_real_uniform): _uniform,
    id(_real_random): _random,
    id(_real_bytes): _token_bytes,
    id(secrets.token_hex): _token_hex,
    id(_real_uuid4): _uuid4,
    id(datetime): _Datetime,
}
_EVERYWHERE = ((time, "time"), (time, "monotonic"), (time, "perf_counter"), (random, "uniform"), (random, "random"))
_ALSO = ((secrets, "token_bytes"), (secrets, "token_hex"), (uuid, "uuid4"))
_OURS = ("core.", "bootstrap.")


def _places() -> list[tuple[Any, str, Any]]:
    """Return the modules that have time or chance under a name of their own, the name, and what it leads to."""
    found: list[tuple[Any, str, Any]] = [(module, name, getattr(module, name)) for module, name in (*_EVERYWHERE, *_ALSO)]
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith(_OURS):
            found += [(module, name, value) for name, value in vars(module).items() if id(value) in _STAND_INS]
    return found


_known: tuple[int, list[tuple[Any, str, Any]]] = (0, [])


@contextmanager
def governed_by(world: World) -> Iterator[None]:
    """Let the code under test have its time and its chance from ``world`` while the block runs."""
    global _world, _known  # noqa: PLW0603 - there is one world at a time
    if _known[0] != len(sys.modules):
        _known = len(sys.modules), _places()
    places = _known[1]
    _world = world
    for module, name, real in places:
        setattr(module, name, _STAND_INS[id(real)])
    try:
        yield
    finally:
        _world = None
        for module, name, real in places:
            setattr(module, name, real)
