"""A run that fails, made as short as it can be, and told so that a person can follow it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from tests.simulation.run import Result, run
from tests.simulation.scenario import START, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.simulation.scenario import Device, Fault

T = TypeVar("T")

MOST_RUNS = 600
"""Runs that one shrinking may take."""
MOST_REPEATS = 5
"""Times that the same thing is told in a story."""


class _Shrinking:
    """Makes ``scenario`` shorter for as long as the invariant ``name`` is broken in it."""

    def __init__(self, scenario: Scenario, name: str) -> None:
        self.scenario = scenario
        self._name = name
        self.runs = 0

    def take(self, shorter: Scenario) -> bool:
        """Go on with ``shorter`` if it breaks the same invariant. Return whether it does."""
        if shorter == self.scenario or self.runs >= MOST_RUNS:
            return False
        self.runs += 1
        if self._name not in run(shorter).names:
            return False
        self.scenario = shorter
        return True

    def without(self, of: Callable[[Scenario], tuple[T, ...]], made: Callable[[Scenario, tuple[T, ...]], Scenario]) -> bool:
        """Leave out as many of the parts that ``of`` returns as possible, in halves, quarters and so on."""
        changed = False
        size = max(len(of(self.scenario)) // 2, 1)
        while True:
            start = 0
            while start < len(parts := of(self.scenario)):
                if self.take(made(self.scenario, parts[:start] + parts[start + size :])):
                    changed = True
                else:
                    start += size
            if size == 1:
                return changed
            size //= 2


def shrink(scenario: Scenario, name: str) -> Scenario:
    """Return a scenario that is as short as possible and breaks the invariant ``name`` too."""
    shrinking = _Shrinking(scenario, name)
    changed = True
    while changed:
        changed = shrinking.without(lambda s: s.faults, lambda s, kept: replace(s, faults=kept))
        changed |= shrinking.without(lambda s: s.messages, lambda s, kept: replace(s, messages=kept))
        for simpler in _simpler(shrinking.scenario):
            changed |= shrinking.take(simpler(shrinking.scenario))
    return shrinking.scenario


def _simpler(scenario: Scenario) -> Iterator[Callable[[Scenario], Scenario]]:
    """Return ways to make ``scenario`` simpler, each by itself."""
    plain = Scenario(0, (), (), ())
    yield lambda s: replace(s, routes=tuple(name for name in s.routes if name in {one.route for one in s.messages}))
    yield lambda s: replace(s, habits=plain.habits)
    yield lambda s: replace(s, receive_maximum=plain.receive_maximum)
    yield lambda s: replace(s, dead_letter_max=plain.dead_letter_max)
    yield lambda s: replace(s, latency=plain.latency)
    yield lambda s: replace(s, splits=False)
    yield lambda s: replace(s, numbered=True)
    for index in range(len(scenario.messages)):
        for change in _SIMPLER_MESSAGES:
            yield lambda s, index=index, change=change: replace(s, messages=_changed(s.messages, index, change))  # type: ignore[misc]
    for index in range(len(scenario.faults)):
        for simpler in _SIMPLER_FAULTS:
            yield lambda s, index=index, change=simpler: replace(s, faults=_changed(s.faults, index, change))  # type: ignore[misc]


_SIMPLER_MESSAGES: tuple[Callable[[Device], Device], ...] = (
    lambda message: replace(message, kind="good"),
    lambda message: replace(message, ms=0),
    lambda message: replace(message, at=START),
    lambda message: replace(message, at=round(message.at, 1)),
    lambda message: replace(message, at=round(message.at, 3)),
    lambda message: replace(message, topic=f"{message.route}/a"),
    lambda message: replace(message, qos=1),
)
_SIMPLER_FAULTS: tuple[Callable[[Fault], Fault], ...] = (
    lambda fault: replace(fault, count=1),
    lambda fault: replace(fault, seconds=min(fault.seconds, 1.0)),
    lambda fault: replace(fault, at=round(fault.at, 1)),
    lambda fault: replace(fault, at=round(fault.at, 3)),
)


def _changed(parts: tuple[T, ...], index: int, change: Callable[[T], T]) -> tuple[T, ...]:
    if index >= len(parts):
        return parts
    return (*parts[:index], change(parts[index]), *parts[index + 1 :])


def _lines(result: Result) -> Iterator[str]:
    """Return a line for each thing that happened. What happens again and again is told a few times only."""
    seen: Counter[str] = Counter()
    left_out = 0
    for when, who, what in result.told:
        seen[what] += 1
        if seen[what] > MOST_REPEATS:
            left_out += 1
            continue
        if left_out:
            yield f"{'':12}  ... and so on, {left_out} times"
            left_out = 0
        yield f"{when:10.4f} s  {who:<10} {what}"


def story(scenario: Scenario) -> str:
    """Return the story of ``scenario``: what it is made of, what happened when, and what was broken."""
    result: Result = run(scenario, verbose=True)
    habits = scenario.habits
    lines = [
        f"seed {scenario.seed}: {len(scenario.messages)} messages, {len(scenario.faults)} faults",
        f"broker: numbers {habits.numbers} of {habits.circle}, {'sets' if habits.dup else 'never sets'} DUP",
        f"broker: {'heeds' if habits.bounded else 'does not heed'} Receive Maximum",
        f"worker: routes {', '.join(scenario.routes)}; {scenario.receive_maximum} messages in hand at most",
        "",
    ]
    lines += list(_lines(result))
    lines += ["", *(f"BROKEN  {broken}" for broken in result.broken)]
    return "\n".join(lines)
