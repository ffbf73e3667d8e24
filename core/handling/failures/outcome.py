"""Decides what happens to a message after its handler has run. The outcome is a value, made by pure code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.database.fault import AWAY, Fault, can_heal
from core.errors import MessageError, NotYet, RetryLater

if TYPE_CHECKING:
    from core.retry import Retry

MAX_AGAIN = 20
"""Runs in a row that lose against other transactions. After that, the fault counts as the message's own."""


@dataclass(frozen=True, slots=True)
class Done:
    """The handler returned.

    - The message: it may be acknowledged.
    - Later messages with its ordering key: the next one runs.
    - All other messages: nothing changes.
    """


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """The message runs again.

    - The message: it runs again after ``seconds``. Where ``counts`` is set, the run that failed counts as one of the
      attempts that its route's ``Retry`` allows.
    - Later messages with its ordering key: they wait behind it until it has its end.
    - All other messages: nothing changes.
    """

    seconds: float
    counts: bool = True


@dataclass(frozen=True, slots=True)
class SitOut:
    """The infrastructure is at fault, such as the database or the counter of rate limits.

    - The message: it waits, unacknowledged, until the infrastructure works again, however long that takes. The run does not
      count as an attempt.
    - Later messages with its ordering key: they wait behind it.
    - All other messages: they wait too, once they are to run. One message at a time tries (see ``outage`` in this room).
      Where the database answers others meanwhile, only those of its route wait (see ``circuit``).
    """


@dataclass(frozen=True, slots=True)
class Bury:
    """The message is at fault, and no further run is to be made.

    - The message: it becomes a dead letter, and may be acknowledged once that is stored. A message of an ``at_most_once``
      route, and a malformed one at QoS 0, is logged and dropped instead.
    - Later messages with its ordering key: the next one runs after that.
    - All other messages: nothing changes.
    """


Outcome = Done | RetryAfter | SitOut | Bury

WAITED_OUT = AWAY | {Fault.SCHEMA}
"""Faults that no message is to blame for, so that it waits until they are over."""
DONE = Done()
SIT_OUT = SitOut()
BURY = Bury()


def decide(error: BaseException | None, fault: Fault, attempt: int, again: int, retry: Retry) -> Outcome:
    """Decide what happens to a message.

    - ``error``: what its handler raised. None means that it returned.
    - ``fault``: whose fault ``error`` is.
    - ``attempt``: the number of this run, counted from 1.
    - ``again``: how often the message has already run again because its transaction lost against others.
    - ``retry``: the policy of its route.
    """
    if error is None:
        return DONE
    if isinstance(error, MessageError):
        return BURY
    if isinstance(error, NotYet):
        return RetryAfter(max(error.seconds, 0), counts=False)
    if fault in WAITED_OUT:
        return SIT_OUT
    if fault is Fault.AGAIN and (seconds := again_after(again)) is not None:
        return RetryAfter(seconds, counts=False)
    if attempt >= retry.attempts:
        return BURY
    if isinstance(error, RetryLater):
        return RetryAfter(max(error.seconds, 0))
    if can_heal(error) if retry.on is None else isinstance(error, retry.on):
        return RetryAfter(retry.pause(attempt))
    return BURY


def again_after(again: int) -> float | None:
    """Return the seconds after which a transaction that lost against others runs again.

    ``again`` is how often it has already run again. Return None where that is too often.
    """
    return min(0.001 * 2**again, 1.0) if again < MAX_AGAIN else None
