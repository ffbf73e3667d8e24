"""Logs failed messages: a new kind of failure at once, and no kind more often than a person can read."""

from __future__ import annotations

from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING

from core.errors import RouteMQError, one_line

if TYPE_CHECKING:
    import logging

    from core.handling.delivery import Delivery

WINDOW = 10.0
"""Seconds in which one kind of failure is logged once."""
MAX_KINDS = 200
"""Kinds of failures that are remembered."""


class Kind:
    """One kind of failure, which is a route and a class of errors.

    - ``told_at``: when a failure of this kind was last logged.
    - ``untold``: how many failures of this kind were not logged since.
    """

    __slots__ = ("told_at", "untold")

    def __init__(self, told_at: float) -> None:
        self.told_at = told_at
        self.untold = 0


class FailureLog:
    """Writes failures to ``log``: the first of a kind in full, those within the next ten seconds as a number.

    An unexpected exception of a handler is logged with its traceback. An error of RouteMQ's own is logged without, because
    its message says everything.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._kinds: OrderedDict[tuple[str, str], Kind] = OrderedDict()

    def failed(self, delivery: Delivery, error: BaseException, consequence: str) -> None:
        """Log that ``delivery`` failed with ``error``. ``consequence`` goes on: "a message failed and ..."."""
        route = delivery.route.name if delivery.route else "-"
        key = (route, type(error).__qualname__)
        now = monotonic()
        kind = self._kinds.get(key)
        if kind is not None and now - kind.told_at < WINDOW:
            kind.untold += 1
            return
        more = f" ({kind.untold:,} more like it before)" if kind is not None and kind.untold else ""
        self._kinds[key] = Kind(now)
        self._kinds.move_to_end(key)
        if len(self._kinds) > MAX_KINDS:
            self._tell_untold(*self._kinds.popitem(last=False))
        explained = isinstance(error, RouteMQError)
        self._log.error(
            "a message failed%s and %s: %s [topic %s, route %s, attempt %d]%s",
            "" if explained else " in its handler",
            consequence,
            one_line(error),
            delivery.message.topic[:200],
            route,
            delivery.attempt,
            more,
            exc_info=None if explained else error,
        )

    def flush(self) -> None:
        """Log the number of failures that were not logged, for each kind whose ten seconds are over.

        The application calls this from time to time.
        """
        now = monotonic()
        for key, kind in list(self._kinds.items()):
            if now - kind.told_at >= WINDOW:
                del self._kinds[key]
                self._tell_untold(key, kind)

    def close(self) -> None:
        """Log the number of failures that were not logged, for all kinds. Call this last, at a stop."""
        while self._kinds:
            self._tell_untold(*self._kinds.popitem(last=False))

    def _tell_untold(self, key: tuple[str, str], kind: Kind) -> None:
        if kind.untold:
            route, name = key
            self._log.error("further messages that failed with %s: %s [route %s]", name, f"{kind.untold:,}", route)
