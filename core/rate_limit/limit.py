"""Middleware that lets so many messages through in a time."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING, Any, Literal, get_args

from core.errors import MessageError, NotYet, RouteError
from core.middleware import Handler, Middleware, Passed
from core.rate_limit.counters import Counts, counters
from core.rate_limit.parse import parse
from core.runtime.clock import clock

if TYPE_CHECKING:
    from core.context import Context
    from core.mqtt.topics import Pattern

Excess = Literal["dead_letter", "drop", "wait"]
Key = str | Callable[[Any], Any] | None

MAX_REMEMBERED = 50_000
MAX_KEY = 200
SPARE = 0.002
"""Seconds that are added to a wait, as a timer may go off early and the message would find no room."""


class RateLimit(Middleware):
    """Lets at most so many messages through in a time. The routes that share one RateLimit share its counts.

    - ``limit``: the number and the time, such as "100/minute", "5/second", "1000 per 2 hours".
    - ``key``: a parameter of the topic, such as "device_id", each of whose values has a count of its own, or a function of
      the context that returns the key. None: one count for all.
    - ``excess``: what becomes of the others. "dead_letter": they are dead letters, with that reason. "drop": they are
      acknowledged and gone, and the ledger counts them as ``dropped``. "wait": they run when there is room again, at the
      pace of the limit, and those behind them with the same ordering key wait with them.
    - ``name``: what its counts are called in Redis, the same in all processes. By default it is made of the pattern of the
      first route that it is given to, its key and its limit.

    A message counts once, however often it runs: retries, and a batch of an exactly_once route that is run again, are known
    by their ``message_id``, of which the latest 50,000 are remembered. A dead letter that is replayed is not counted. A
    message that the broker sends once more after a crash is counted once more. Raise RouteError.
    """

    def __init__(self, limit: str, key: Key = None, excess: Excess = "dead_letter", *, name: str | None = None) -> None:
        self._item = parse(limit)
        if excess not in get_args(Excess):
            raise RouteError(f"RateLimit(excess={excess!r}): it is none of {', '.join(get_args(Excess))}")
        if (key is not None and not callable(key) and not isinstance(key, str)) or inspect.iscoroutinefunction(key):
            raise RouteError(f"RateLimit(key={key!r}): neither a parameter's name nor a plain function of the context")
        self._key = key
        self._excess = excess
        self._seconds = self._item.get_expiry()
        self._pace = self._seconds / self._item.amount
        self._named = False
        if name is not None:
            self._call_it(name, given=True)

    def _call_it(self, name: str, *, given: bool) -> None:
        self._item.namespace = counters().name(self, name, given=given)
        self._named = True

    def registered(self, pattern: Pattern) -> None:
        """Refuse a route that has not the parameter that is the key. Raise RouteError."""
        if not self._named:
            key = self._key
            of = key if isinstance(key, str) else getattr(key, "__qualname__", type(key).__name__) if key else "all"
            self._call_it(f"{pattern.text} {of} {self._item.amount}/{self._seconds}s", given=False)
        if isinstance(self._key, str) and self._key not in pattern.names:
            has = f"its parameters are {', '.join(pattern.names)}" if pattern.names else "it has no parameters"
            raise RouteError(f"RateLimit(key={self._key!r}) is no parameter of the pattern; {has}")

    @property
    def counts(self) -> Counts:
        """What this limit has counted in memory."""
        return counters().of(self, self._item)

    async def handle(self, context: Context[Any], next_handler: Handler) -> Any:
        """Count the message and hand it on, or do with it as is done with the excess.

        Raises MessageError for a dead letter, NotYet for a message that waits, CounterUnreachableError where Redis is away.
        """
        counts = self.counts
        message_id, counted = context["message_id"], counts.counted
        if context["attempt"] == 1 and message_id not in counted:
            key = self._key_of(context)
            seconds = await self._room(counts, key, message_id)
            if seconds > 0:
                if self._excess == "drop":
                    return Passed.DROPPED
                if self._excess == "wait":
                    raise NotYet(self._queued(counts, key, message_id, seconds))
                of = f" for {self._key}={key!r}" if isinstance(self._key, str) else f" for {key!r}" if self._key else ""
                raise MessageError(f"more than {self._item}{of}")
            _remember(counted, message_id, None)
        reply = await next_handler(context)
        # What is done does not run again, unless its transaction is rolled back.
        if context["route"].options.delivery != "exactly_once":
            counted.pop(message_id, None)
        return reply

    def _key_of(self, context: Context[Any]) -> str:
        key = self._key
        if key is None:
            return ""
        text = str(context["params"][key] if isinstance(key, str) else key(context))
        # A topic level may have 65,535 bytes, and memory is for 100,000 keys.
        return text if len(text) <= MAX_KEY else blake2b(text.encode(errors="surrogatepass"), digest_size=32).hexdigest()

    async def _room(self, counts: Counts, key: str, message_id: str) -> float:
        """Count the message and return 0, or return the seconds until there is room for it."""
        now = clock().monotonic
        if counts.line and message_id not in counts.waiting:
            # Others of the key wait already, and go first.
            ahead = counts.line.get(key, 0.0) - now()
            if ahead > 0:
                return ahead
        redis = counters().redis
        if redis is None:
            seconds = counts.windows.take(key)
        elif await redis.take(self._item, key):
            seconds = 0.0
        else:
            wait = self._excess == "wait"
            seconds = SPARE + (await redis.seconds_until_room(self._item, key) if wait else 0)
        if seconds == 0 and counts.waiting:
            counts.waiting.pop(message_id, None)
            if counts.line.get(key, inf) <= now():
                del counts.line[key]
        return seconds

    def _queued(self, counts: Counts, key: str, message_id: str, seconds: float) -> float:
        """Return the seconds that the message is to wait, behind those of its key that wait already.

        They come back at the pace of the limit, and not all at once when the first of them has room.
        """
        now = clock().monotonic()
        at = max(now + seconds + SPARE, counts.line.get(key, 0.0) + self._pace)
        _remember(counts.line, key, at)
        _remember(counts.waiting, message_id, None)
        return at - now


def _remember(within: OrderedDict[str, Any], key: str, value: Any) -> None:
    within[key] = value
    within.move_to_end(key)
    if len(within) > MAX_REMEMBERED:
        within.popitem(last=False)
