"""What is decided about a message after its handler ran."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError

from core.database.fault import Fault
from core.errors import HandlerTimeoutError, ModelError, PayloadError, Reject, RetryLater, RouteError
from core.handling.failures.outcome import BURY, DONE, MAX_AGAIN, SIT_OUT, Outcome, RetryAfter, decide
from core.retry import Retry

PLAIN = Retry(attempts=3, first=1, factor=4, most=10, jitter=False)


def after(
    error: BaseException | None, *, fault: Fault = Fault.MESSAGE, attempt: int = 1, again: int = 0, retry: Retry = PLAIN
) -> Outcome:
    return decide(error, fault, attempt, again, retry)


def test_a_handler_that_returned_is_done() -> None:
    assert after(None) is DONE


@pytest.mark.parametrize("error", [PayloadError("no JSON"), Reject("unknown meter")])
def test_what_no_second_run_can_cure_is_buried_at_once(error: Exception) -> None:
    assert after(error) is BURY


def test_an_exception_is_retried_with_growing_pauses_and_then_buried() -> None:
    assert after(ValueError(), attempt=1) == RetryAfter(1)
    assert after(ValueError(), attempt=2) == RetryAfter(4)
    assert after(ValueError(), attempt=3) is BURY


def test_a_pause_is_never_longer_than_the_policy_allows() -> None:
    assert after(ValueError(), attempt=9, retry=Retry(attempts=10_000, first=1, factor=4, most=10, jitter=False)) == (
        RetryAfter(10)
    )
    assert Retry(attempts=10_000, most=7).pause(9_999) <= 7


def test_jitter_takes_between_half_and_all_of_the_pause() -> None:
    pauses = [Retry(first=8, most=8).pause(1) for _ in range(200)]
    assert 4 <= min(pauses) < max(pauses) <= 8


def test_only_the_named_exceptions_are_retried() -> None:
    picky = Retry(attempts=3, on=(ConnectionError, TimeoutError))
    assert after(ValueError(), retry=picky) is BURY
    assert isinstance(after(ConnectionError(), retry=picky), RetryAfter)


def test_a_handler_chooses_its_own_pause_but_not_more_attempts() -> None:
    assert after(RetryLater(90)) == RetryAfter(90)
    assert after(RetryLater(-1)) == RetryAfter(0)
    assert after(RetryLater(90), attempt=3) is BURY


def test_a_handler_that_hung_is_retried_like_one_that_raised() -> None:
    assert after(HandlerTimeoutError("30 s")) == RetryAfter(1)


@pytest.mark.parametrize("fault", [Fault.INFRASTRUCTURE, Fault.SETUP])
def test_the_infrastructures_faults_are_nobodys_dead_letter(fault: Fault) -> None:
    assert after(OSError(), fault=fault, attempt=1_000) is SIT_OUT


def test_a_lost_transaction_runs_again_at_once_without_costing_an_attempt() -> None:
    first = after(RuntimeError(), fault=Fault.AGAIN, attempt=3)
    assert first == RetryAfter(0.001, counts=False)
    later = after(RuntimeError(), fault=Fault.AGAIN, attempt=3, again=MAX_AGAIN - 1)
    assert later == RetryAfter(1.0, counts=False)
    assert after(RuntimeError(), fault=Fault.AGAIN, attempt=3, again=MAX_AGAIN) is BURY


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"first": -1}, {"factor": 0.5}, {"most": -1}])
def test_a_policy_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RouteError, match=str(next(iter(wrong)))):
        Retry(**wrong)


@pytest.mark.case(10)
@pytest.mark.parametrize("error", [KeyError("value"), TypeError(), AttributeError(), ModelError("no column")])
def test_what_no_waiting_heals_is_not_retried_unless_the_route_says_so(error: Exception) -> None:
    assert decide(error, Fault.MESSAGE, 1, 0, Retry(attempts=3)) is BURY
    caused = RuntimeError()
    caused.__cause__ = error
    assert decide(caused, Fault.MESSAGE, 1, 0, Retry(attempts=3)) is BURY
    assert isinstance(decide(error, Fault.MESSAGE, 1, 0, Retry(attempts=3, on=Exception)), RetryAfter)
    assert isinstance(decide(ValueError(), Fault.MESSAGE, 1, 0, Retry(attempts=3)), RetryAfter)


@pytest.mark.case(10)
def test_data_that_the_database_refuses_is_not_retried() -> None:
    for refused in (IntegrityError("INSERT", {}, Exception()), DataError("INSERT", {}, Exception())):
        assert decide(refused, Fault.MESSAGE, 1, 0, Retry(attempts=3)) is BURY
    wrong = ProgrammingError("SELECT", {}, Exception())
    assert isinstance(decide(wrong, Fault.MESSAGE, 1, 0, Retry(attempts=3)), RetryAfter)
