"""Tells of failed messages in the log: each kind at once, and no kind more often than a person can read."""

from __future__ import annotations

from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING

from core.errors import MessageError, RouteMQError, one_line

if TYPE_CHECKING:
    import logging

    from core.handling.delivery import Delivery

WINDOW = 10.0
"""Seconds in which one kind of failure, of one route, is told once."""
MAX_KINDS = 200


class Kind:
    """One kind of failure: a route and an error class; when it was last told, and how many were not since."""

    __slots__ = ("told_at", "untold")

    def __init__(self, told_at: float) -> None:
        self.told_at = told_at
        self.untold = 0


class FailureLog:
    """Writes failures to ``log``: the first of a kind in full, those within the next ten seconds as a number.

    An unexpected exception of a handler comes with its traceback; an error that says all in its message comes without.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._kinds: OrderedDict[tuple[str, str], Kind] = OrderedDict()

    def failed(self, delivery: Delivery, error: BaseException, consequence: str) -> None:
        """Tell that ``delivery`` failed with ``error``, and what comes of it, in words."""
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
        explained = isinstance(error, (MessageError, RouteMQError))
        self._log.error(
            "%s failed, %s: %s [topic %s, route %s, attempt %d]%s",
            "message" if explained else "handler",
            consequence,
            one_line(error),
            delivery.message.topic[:200],
            route,
            delivery.attempt,
            more,
            exc_info=None if explained else error,
        )

    def flush(self) -> None:
        """Tell the number of those that were not told, once their ten seconds are over; called from time to time."""
        now = monotonic()
        for key, kind in list(self._kinds.items()):
            if now - kind.told_at >= WINDOW:
                del self._kinds[key]
                self._tell_untold(key, kind)

    def close(self) -> None:
        """Tell all that is untold; the last call at a stop."""
        while self._kinds:
            self._tell_untold(*self._kinds.popitem(last=False))

    def _tell_untold(self, key: tuple[str, str], kind: Kind) -> None:
        if kind.untold:
            route, name = key
            self._log.error("%s more failed with %s [route %s]", f"{kind.untold:,}", name, route)
