"""What holds for all tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _full_speed_in_faults(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep coverage out of the workers of fault tests, which have to keep up with a stream, and die before they report."""
    if "faults" in request.path.parts:
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
