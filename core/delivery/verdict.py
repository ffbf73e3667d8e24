"""What came of a run of several messages together."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a run, said by whoever committed it: that nobody is to blame proves no commit.

    - ``committed``: whether the outcome of all messages that are not blamed is durable.
    - ``blamed``: by their places, the errors of messages that failed by their own fault.
    - ``failure``: what failed where nobody knows whose fault it is.
    """

    committed: bool
    blamed: dict[int, BaseException] = field(default_factory=dict)
    failure: BaseException | None = None


COMMITTED = Verdict(committed=True)
