"""Middleware that limits how many messages run within a time."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING, Any, Literal, get_args

from core.database.transaction import may_be_undone
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
"""Messages that one limit remembers as counted, and as many that wait, and as many keys for which they wait."""
MAX_KEY = 200
"""Characters of a key that are kept as they are. The hash of a longer key is kept."""
SPARE = 0.002
"""Seconds that are added to a wait. A timer may go off early, and then the message would find no room."""


class RateLimit(Middleware):
    """Limits how many messages run within a time. Routes that are given the same RateLimit share its counts.

    - ``limit``: the number and the time, such as "100/minute", "5/second" or "1000 per 2 hours".
    - ``key``: the name of a parameter of the topic, such as "device_id", or a function of the context. The messages of each
      value of the parameter, or of each result of the function, are counted by themselves. None: all are counted together.
    - ``excess``: what becomes of the messages beyond the limit.

      - "dead_letter": they become dead letters, whose reason names the limit and the key.
      - "drop": they are acknowledged and do not run. The ledger counts them as ``dropped``.
      - "wait": they run when there is room again, at the pace of the limit. Messages behind them that have the same
        ordering key wait too.

    - ``name``: the name of the counts in Redis, the same in all processes. None: it is made of the pattern of the first
      route that is given the RateLimit, of the key and of the limit.

    A message counts once, however often it runs. Retries, and messages whose transaction is rolled back and runs again,
    are known by their ``message_id``. The latest 50,000 of them are remembered. A dead letter that is replayed is not
    counted. A message that the broker sends once more after a crash is counted once more.

    Raise RouteError for a limit that cannot be read, for another value of ``key`` or ``excess``, and for a name that another
    limit has.
    """

    def __init__(self, limit: str, key: Key = None, excess: Excess = "dead_letter", *, name: str | None = None) -> None:
        self._item = parse(limit)
        if excess not in get_args(Excess):
            raise RouteError(f"RateLimit(excess={excess!r}): excess must be one of {', '.join(get_args(Excess))}")
        if (key is not None and not callable(key) and not isinstance(key, str)) or inspect.iscoroutinefunction(key):
            raise RouteError(
                f"RateLimit(key={key!r}): key is neither the name of a parameter nor a plain function of the context. "
                "Give one of them"
            )
        self._key = key
        self._excess = excess
        self._seconds = self._item.get_expiry()
        self._pace = self._seconds / self._item.amount
        self._named = False
        if name is not None:
            self._set_name(name, given=True)

    def _set_name(self, name: str, *, given: bool) -> None:
        self._item.namespace = counters().reserve_name(self, name, given=given)
        self._named = True

    def registered(self, pattern: Pattern) -> None:
        """Make the name of the limit, if it has none. Raise RouteError if ``pattern`` lacks the parameter of the key."""
        if not self._named:
            key = self._key
            of = key if isinstance(key, str) else getattr(key, "__qualname__", type(key).__name__) if key else "all"
            self._set_name(f"{pattern.text} {of} {self._item.amount}/{self._seconds}s", given=False)
        if isinstance(self._key, str) and self._key not in pattern.names:
            has = f"its parameters are {', '.join(pattern.names)}" if pattern.names else "it has no parameters"
            raise RouteError(f"RateLimit(key={self._key!r}): the pattern has no such parameter, {has}")

    @property
    def counts(self) -> Counts:
        """The counts of this limit in memory."""
        return counters().of(self, self._item)

    async def handle(self, context: Context[Any], next_handler: Handler) -> Any:
        """Count the message and run its handler, or treat the message as ``excess`` says.

        Return the handler's reply, or ``Passed.DROPPED``. Raise MessageError for a message that becomes a dead letter,
        NotYet for a message that waits, and CounterUnreachableError if the Redis server does not count.
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
                    raise NotYet(self._wait(counts, key, message_id, seconds))
                of = f" for {self._key}={key!r}" if isinstance(self._key, str) else f" for {key!r}" if self._key else ""
                raise MessageError(f"more than {self._item}{of}")
            _remember(counted, message_id, None)
        reply = await next_handler(context)
        # A message that is done does not run again, unless its transaction is rolled back.
        if not may_be_undone():
            counted.pop(message_id, None)
        return reply

    def _key_of(self, context: Context[Any]) -> str:
        key = self._key
        if key is None:
            return ""
        text = str(context["params"][key] if isinstance(key, str) else key(context))
        # A topic level may have 65,535 bytes, and 100,000 keys are kept in memory.
        return text if len(text) <= MAX_KEY else blake2b(text.encode(errors="surrogatepass"), digest_size=32).hexdigest()

    async def _room(self, counts: Counts, key: str, message_id: str) -> float:
        """Count the message and return 0, or return the seconds until there is room for it."""
        now = clock().monotonic
        if counts.waits_until and message_id not in counts.waiting:
            # Other messages of the key wait already, and run first.
            ahead = counts.waits_until.get(key, 0.0) - now()
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
            if counts.waits_until.get(key, inf) <= now():
                del counts.waits_until[key]
        return seconds

    def _wait(self, counts: Counts, key: str, message_id: str, seconds: float) -> float:
        """Return the seconds that the message waits: ``seconds``, or longer if others of its key wait already.

        The messages of a key come back at the pace of the limit, and not all at once when the first one has room.
        """
        now = clock().monotonic()
        at = max(now + seconds + SPARE, counts.waits_until.get(key, 0.0) + self._pace)
        _remember(counts.waits_until, key, at)
        _remember(counts.waiting, message_id, None)
        return at - now


def _remember(within: OrderedDict[str, Any], key: str, value: Any) -> None:
    within[key] = value
    within.move_to_end(key)
    if len(within) > MAX_REMEMBERED:
        within.popitem(last=False)
