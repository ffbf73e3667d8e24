"""The decision what happens to a message after its handler has run: a value, made by pure code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.database.fault import Fault
from core.errors import MessageError, NotYet, RetryLater

if TYPE_CHECKING:
    from core.retry import Retry

MAX_AGAIN = 20
"""A transaction that loses against others this often in a row is held to be the message's own fault."""


@dataclass(frozen=True, slots=True)
class Done:
    """The handler returned; the message can be acknowledged."""


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """The message runs again after ``seconds``; later ones with its ordering key wait behind it."""

    seconds: float
    counts: bool = True


@dataclass(frozen=True, slots=True)
class SitOut:
    """The infrastructure is at fault: the message waits until it is back, however long that takes."""


@dataclass(frozen=True, slots=True)
class Bury:
    """The message becomes a dead letter."""


Outcome = Done | RetryAfter | SitOut | Bury

DONE = Done()
SIT_OUT = SitOut()
BURY = Bury()


def decide(error: BaseException | None, fault: Fault, attempt: int, again: int, retry: Retry) -> Outcome:
    """Decide what happens to a message.

    ``error`` is what its handler raised (None: it returned), ``fault`` whose fault that is, ``attempt`` the number of
    this run (from 1), ``again`` how often the database has already asked for the transaction again.
    """
    if error is None:
        return DONE
    if isinstance(error, MessageError):
        return BURY
    if isinstance(error, NotYet):
        return RetryAfter(max(error.seconds, 0), counts=False)
    if fault in (Fault.INFRASTRUCTURE, Fault.SETUP):
        return SIT_OUT
    if fault is Fault.AGAIN and (seconds := again_after(again)) is not None:
        return RetryAfter(seconds, counts=False)
    if attempt >= retry.attempts:
        return BURY
    if isinstance(error, RetryLater):
        return RetryAfter(max(error.seconds, 0))
    if isinstance(error, retry.on):
        return RetryAfter(retry.pause(attempt))
    return BURY


def again_after(again: int) -> float | None:
    """Return the seconds after which a transaction that lost against others runs again; None where it lost too often.

    ``again`` is how often it has run again already.
    """
    return min(0.001 * 2**again, 1.0) if again < MAX_AGAIN else None
