"""The commands run in projects of their own, with a client beside them."""

from __future__ import annotations

from tests.application.conftest import project, publisher  # noqa: F401 - fixtures
