"""What holds for all tests, and the tables that end a report."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.cases import RUNS, case_rows, numbers_of, write_table
from tests.support.stream import SOAK


@pytest.fixture(autouse=True)
def _full_speed_in_faults(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep coverage out of the workers of fault tests, which have to keep up with a stream, and die before they report."""
    if "faults" in request.path.parts:
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture
def soak_run(request: pytest.FixtureRequest) -> int:
    """Give the number of this run of a test in a soak."""
    return int(request.param)


def _repeats_itself(definition: pytest.Item) -> bool:
    return "faults" in definition.path.parts


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of a case many times in a soak."""
    definition = metafunc.definition
    if SOAK and definition.get_closest_marker("case") is not None and not _repeats_itself(definition):
        metafunc.fixturenames.append("soak_run")
        metafunc.parametrize("soak_run", range(RUNS), indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have each test of a case tell its number. In a soak, leave out what is neither of a case nor a fault under load."""
    chosen: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        numbers = numbers_of(item)
        item.user_properties += [("case", number) for number in numbers]
        (chosen if numbers or _repeats_itself(item) else others).append(item)
    if SOAK:
        items[:] = chosen
        config.hook.pytest_deselected(items=others)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write the table of faults, and in a soak that of the cases."""
    found = [report for reports in terminalreporter.stats.values() for report in reports]
    reports = [report for report in found if isinstance(report, pytest.TestReport)]
    called = [report for report in reports if report.when == "call"]
    faults: list[Any] = [value for report in called for name, value in report.user_properties if name == "fault"]
    write_table(terminalreporter, "faults", faults)
    if SOAK:
        write_table(terminalreporter, "cases", case_rows(reports))
