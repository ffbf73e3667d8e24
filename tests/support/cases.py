"""The cases of the promise. Tests that carry ``@pytest.mark.case(number)`` hold the promise in that case.

A soak runs each of them ten times, and ends with a table of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pytest

CASES = {
    1: "a transaction that rolled back is not done",
    2: "a new message is not taken for a redelivery",
    3: "the answer to COMMIT is lost",
    4: "the database hangs instead of refusing",
    5: "order within a topic, in the halving",
    6: "fail-over of the database",
    7: "one message with an infrastructure's code",
    8: "PgBouncer pools transactions",
    9: "every message fails",
    10: "a run is kept whole or not at all",
    11: "hostile brokers and devices",
    12: "sessions within transactions",
}
RUNS = 10
"""How often a soak runs each test of a case. Tests in tests/faults repeat their fault by themselves."""


def numbers_of(item: pytest.Item) -> list[int]:
    """Return the cases that ``item`` belongs to. Raise ValueError for one that there is not."""
    numbers = [int(mark.args[0]) for mark in item.iter_markers("case")]
    for number in numbers:
        if number not in CASES:
            raise ValueError(f"{item.nodeid} is of case {number}, and tests/support/cases.py has no such case")
    return numbers


def case_rows(reports: Iterable[pytest.TestReport]) -> list[dict[str, object]]:
    """Return a row for each case. A case without tests has one too, so that it is missed."""
    counted = {number: {"runs": 0, "failures": 0, "skipped": 0} for number in CASES}
    tests: dict[int, set[str]] = {number: set() for number in CASES}
    for report in reports:
        for name, value in report.user_properties:
            if name != "case":
                continue
            number = int(str(value))
            tests[number].add(report.nodeid.partition("[")[0])
            own = counted[number]
            own["runs"] += report.when == "call" and not report.skipped
            own["failures"] += report.failed
            own["skipped"] += report.skipped
    return [{"case": number, "what": what, "tests": len(tests[number])} | counted[number] for number, what in CASES.items()]


def write_table(reporter: pytest.TerminalReporter, title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Write ``rows`` below ``title``, with the names of their columns. Write nothing for no rows."""
    if not rows:
        return
    reporter.section(title)
    names = list(rows[0])
    widths = [max(len(name), *(len(str(row[name])) for row in rows)) for name in names]
    for row in [dict(zip(names, names, strict=True)), *rows]:
        reporter.write_line("  ".join(str(row[name]).ljust(width) for name, width in zip(names, widths, strict=True)))
