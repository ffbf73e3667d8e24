"""Failures in the log: the first of a kind at once, a flood as a number."""

from __future__ import annotations

import logging
from functools import cache

import pytest

from core.errors import PayloadError
from core.handling.delivery import Delivery
from core.handling.failures import failure_log as module
from core.handling.failures.failure_log import MAX_KINDS, FailureLog
from core.mqtt.message import Message
from core.router import Route, Router


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


@cache
def named(name: str) -> Route:
    router = Router()
    router.on("devices/<n>/data", lambda context: None, name=name)
    return router.routes[0]


def delivery(route: str = "devices") -> Delivery:
    made = Delivery(Message("devices/1/data", b""), named(route), {})
    made.attempt = 2
    return made


def test_a_flood_of_one_kind_is_one_line_and_then_a_number(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    failures = FailureLog(logging.getLogger("test.failures"))
    for _ in range(10_000):
        failures.failed(delivery(), PayloadError("no JSON"), "is now a dead letter")
    assert len(caplog.records) == 1
    line = caplog.records[0].getMessage()
    assert "PayloadError: no JSON" in line
    assert "topic devices/1/data, route devices, attempt 2" in line
    clock[0] += 11
    failures.flush()
    assert caplog.records[1].getMessage() == "further messages that failed with PayloadError: 9,999 [route devices]"
    failures.flush()
    assert len(caplog.records) == 2


def test_another_kind_or_route_is_told_at_once(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    failures = FailureLog(logging.getLogger("test.failures"))
    failures.failed(delivery(), PayloadError("x"), "y")
    failures.failed(delivery(), ValueError("x"), "y")
    failures.failed(delivery("other"), ValueError("x"), "y")
    assert len(caplog.records) == 3


def test_an_exception_comes_with_its_traceback_and_an_explained_error_without(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    failures = FailureLog(logging.getLogger("test.failures"))
    failures.failed(delivery(), PayloadError("x"), "y")
    failures.failed(delivery(), ValueError("x"), "y")
    assert [bool(record.exc_info) for record in caplog.records] == [False, True]


def test_what_was_not_told_is_told_at_the_next_of_its_kind_and_at_the_end(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    failures = FailureLog(logging.getLogger("test.failures"))
    for _ in range(3):
        failures.failed(delivery(), ValueError("x"), "y")
    clock[0] += 11
    failures.failed(delivery(), ValueError("x"), "y")
    assert caplog.records[1].getMessage().endswith("(2 more like it before)")
    failures.failed(delivery(), ValueError("x"), "y")
    failures.close()
    assert caplog.records[2].getMessage() == "further messages that failed with ValueError: 1 [route devices]"


def test_the_number_of_kinds_remembered_is_bounded(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    failures = FailureLog(logging.getLogger("test.failures"))
    for number in range(MAX_KINDS * 3):
        failures.failed(delivery(f"route {number}"), PayloadError("x"), "y")
    assert len(caplog.records) == MAX_KINDS * 3
    # What is remembered is not told again within its ten seconds.
    for number in range(MAX_KINDS * 2, MAX_KINDS * 3):
        failures.failed(delivery(f"route {number}"), PayloadError("x"), "y")
    assert len(caplog.records) == MAX_KINDS * 3
    forgotten = f"route {MAX_KINDS * 2 - 1}"
    failures.failed(delivery(forgotten), PayloadError("x"), "y")
    assert caplog.records[-1].getMessage().endswith(f"[topic devices/1/data, route {forgotten}, attempt 2]")
