"""What belongs to one application in this process."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

T = TypeVar("T")


class Part(Generic[T]):
    """Something that each application has one of. ``make`` makes it when an application first asks for it.

    The module that knows the part declares it, so that nothing here knows any of them:

    - the database (``core.database.current``),
    - the publisher (``core.publisher``),
    - the counters of rate limits (``core.rate_limit.counters``),
    - the clock (``core.runtime.clock``),
    - the codecs by name (``core.codecs.registry``),
    - the instances of controllers (``core.controller``).
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self.make = make


class Runtime:
    """The parts of one application.

    A process has one of its own, which all code uses that asks for no other. A second application in the same process
    lives in a runtime of its own::

        with Runtime().used():
            application = Application(settings, router)

    The code of the block uses that runtime, and so do the tasks that it starts.
    """

    def __init__(self) -> None:
        self._parts: dict[Part[Any], Any] = {}

    def __getitem__(self, part: Part[T]) -> T:
        """Return this runtime's ``part``."""
        try:
            found: T = self._parts[part]
        except KeyError:
            found = self._parts[part] = part.make()
        return found

    @contextmanager
    def used(self) -> Iterator[Self]:
        """Use this runtime in the code of the block, and in the tasks that it starts."""
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)


_current: ContextVar[Runtime] = ContextVar("routemq_runtime", default=Runtime())  # noqa: B039 - the process's own


def current() -> Runtime:
    """Return the runtime of the running code."""
    return _current.get()
