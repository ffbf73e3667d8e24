"""One version, wherever it is said."""

from __future__ import annotations

import re
import tomllib

from core import __version__
from tests.support.worker import ROOT


def test_the_changelog_begins_with_the_version_in_hand() -> None:
    (latest, *_) = re.findall(r"^## \[?([^\s\]]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert latest == __version__


def test_the_package_has_the_version_of_the_code() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__
