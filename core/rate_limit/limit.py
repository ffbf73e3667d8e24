"""Rate limits: middleware that lets so many messages through in a time, and does with the excess what was chosen."""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, get_args
from weakref import WeakSet

from core.errors import MessageError, NotYet, RouteError
from core.middleware import DROPPED, Handler, Middleware
from core.rate_limit.windows import MOST_STAMPS, Redis, Windows

if TYPE_CHECKING:
    from limits import RateLimitItem

    from core.context import Context
    from core.mqtt.topics import Pattern

Excess = Literal["dead_letter", "drop", "wait"]
Key = str | Callable[[Any], Any] | None

MOST_REMEMBERED = 50_000
LONGEST_KEY = 200
SPARE = 0.002
"""Seconds that are added to a wait, as a timer may go off early and the message would find no room."""
_LIMIT = re.compile(r"[1-9][0-9]*\s*(/|per\s)\s*([1-9][0-9]*)?\s*[a-z]+", re.IGNORECASE)

_redis: Redis | None = None
_clock: Callable[[], float] = monotonic
_made: Counter[str] = Counter()
_limits: WeakSet[RateLimit] = WeakSet()


def configure(url: str) -> None:
    """Count on the Redis server at ``url`` from now on, in memory if it is empty. Raises StartError."""
    global _redis  # noqa: PLW0603 - one counter for the process, as with the database
    _redis = Redis(url) if url else None


async def check() -> None:
    """Ask the Redis server whether it counts, if there is one. Raises CounterUnreachableError."""
    if _redis is not None:
        await _redis.seconds_until_room(_parse("1/second"), "doctor")


async def close() -> None:
    """Let go of the Redis server, if there is one."""
    if _redis is not None:
        await _redis.close()
    configure("")


def start_anew(clock: Callable[[], float] = monotonic) -> None:
    """Forget what was counted in memory, and take the time from ``clock``, in seconds, from now on."""
    global _clock  # noqa: PLW0603 - as above
    _clock = clock
    for limit in _limits:
        limit.start_anew()


class RateLimit(Middleware):
    """Lets at most ``limit`` messages through, such as "100/minute", "5/second", "1000 per 2 hours".

    ``key``: a parameter of the topic, such as "device_id", whose every value has a count of its own, or a function of the
    context that gives the key; None: one count for all. The routes that share one RateLimit share its counts.

    ``excess``: what becomes of the others. "dead_letter": they are dead letters, with that reason. "drop": they are
    acknowledged and gone, and the ledger counts them as ``dropped``. "wait": they run when there is room again, at the
    limit's pace, and those behind them with the same ordering key wait with them.

    A message counts once, however often it runs: retries, and a batch of an exactly_once route that is run again, are known
    by their ``message_id``, of which the latest 50,000 are remembered. A dead letter that is replayed is not counted. A
    message that the broker sends once more after a crash is counted once more. Raises RouteError.
    """

    def __init__(self, limit: str, key: Key = None, excess: Excess = "dead_letter") -> None:
        module = str(sys._getframe(1).f_globals.get("__name__"))  # noqa: SLF001 - where it is written
        self._item = _parse(limit)
        if excess not in get_args(Excess):
            raise RouteError(f"RateLimit(excess={excess!r}): it is none of {', '.join(get_args(Excess))}")
        if (key is not None and not callable(key) and not isinstance(key, str)) or inspect.iscoroutinefunction(key):
            raise RouteError(f"RateLimit(key={key!r}): neither a parameter's name nor a plain function of the context")
        self._key = key
        self._excess = excess
        self._seconds = self._item.get_expiry()
        self._pace = self._seconds / self._item.amount
        # The name in Redis: the same in all processes of the same code, and different for each limit in it.
        of = key if isinstance(key, str) else getattr(key, "__qualname__", type(key).__name__) if key else "all"
        self._item.namespace = f"{module}/{of}/{_number(f'{module}/{of}/{self._item!r}')}"
        self.start_anew()
        _limits.add(self)

    def start_anew(self) -> None:
        """Forget what was counted in memory."""
        self._windows = Windows(self._item.amount, self._seconds, _clock)
        # Of messages that may run again: those that were counted, those told to wait, and until when the last of a key is.
        self._counted: OrderedDict[str, None] = OrderedDict()
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._line: OrderedDict[str, float] = OrderedDict()

    def registered(self, pattern: Pattern) -> None:
        """Refuse a route that has not the parameter that is the key."""
        if isinstance(self._key, str) and self._key not in pattern.names:
            has = f"its parameters are {', '.join(pattern.names)}" if pattern.names else "it has no parameters"
            raise RouteError(f"RateLimit(key={self._key!r}) is no parameter of the pattern; {has}")

    async def handle(self, context: Context[Any], next_handler: Handler) -> Any:
        """Count the message and hand it on, or do with it as is done with the excess.

        Raises MessageError for a dead letter, NotYet for a message that waits, CounterUnreachableError where Redis is away.
        """
        message_id, counted = context["message_id"], self._counted
        if context["attempt"] == 1 and message_id not in counted:
            key = self._key_of(context)
            seconds = await self._room(key, message_id)
            if seconds > 0:
                if self._excess == "drop":
                    return DROPPED
                if self._excess == "wait":
                    raise NotYet(self._queued(key, message_id, seconds))
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
        return text if len(text) <= LONGEST_KEY else blake2b(text.encode(errors="surrogatepass"), digest_size=32).hexdigest()

    async def _room(self, key: str, message_id: str) -> float:
        """Count the message and give 0, or give the seconds until there is room for it."""
        if self._line and message_id not in self._waiting:
            # Others of the key wait already, and go first.
            ahead = self._line.get(key, 0.0) - _clock()
            if ahead > 0:
                return ahead
        if _redis is None:
            seconds = self._windows.take(key)
        elif await _redis.take(self._item, key):
            seconds = 0.0
        else:
            wait = self._excess == "wait"
            seconds = SPARE + (await _redis.seconds_until_room(self._item, key) if wait else 0)
        if seconds == 0 and self._waiting:
            self._waiting.pop(message_id, None)
            if self._line.get(key, inf) <= _clock():
                del self._line[key]
        return seconds

    def _queued(self, key: str, message_id: str, seconds: float) -> float:
        """Give the seconds that the message is to wait, behind those of its key that wait already.

        They come back at the pace of the limit, and not all at once when the first of them has room.
        """
        now = _clock()
        at = max(now + seconds + SPARE, self._line.get(key, 0.0) + self._pace)
        _remember(self._line, key, at)
        _remember(self._waiting, message_id, None)
        return at - now


def _parse(limit: str) -> RateLimitItem:
    # Only here: the library takes a third of a second to import, which applications without rate limits need not wait for.
    from limits import parse  # noqa: PLC0415

    allowed = "write a number and a time, such as '100/minute', '5/second' or '1000 per 2 hours'"
    if not isinstance(limit, str) or not _LIMIT.fullmatch(limit.strip()):
        raise RouteError(f"RateLimit({limit!r}): {allowed}; for two limits give two RateLimits")
    try:
        item = parse(limit)
    except ValueError:
        raise RouteError(f"RateLimit({limit!r}): {allowed}; times are second, minute, hour, day, month, year") from None
    if item.amount > MOST_STAMPS:
        raise RouteError(f"RateLimit({limit!r}): at most {MOST_STAMPS:,} messages; give the limit for a shorter time")
    return item


def _number(name: str) -> int:
    """Give which one of its name this is, so that two equal limits of a module count apart."""
    _made[name] += 1
    return _made[name]


def _remember(within: OrderedDict[str, Any], key: str, value: Any) -> None:
    within[key] = value
    within.move_to_end(key)
    if len(within) > MOST_REMEMBERED:
        within.popitem(last=False)
