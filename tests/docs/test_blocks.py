"""Every Python block of README.md and docs/ runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.support.documentation.blocks import ROOT, blocks_of, pages
from tests.support.documentation.run import run

BLOCKS = [(page, block.line) for page in pages() for block in blocks_of(page)]


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], dict[int, str]]:
    """Give a function that runs a page, once for all its blocks."""
    return cache(lambda page: run(page, tmp_path_factory.mktemp(page.stem)))


@pytest.mark.parametrize(
    ("page", "line"), [pytest.param(page, line, id=f"{page.relative_to(ROOT)}:{line}") for page, line in BLOCKS]
)
def test_a_block_runs(reports: Callable[[Path], dict[int, str]], page: Path, line: int) -> None:
    said = reports(page)[line]
    if said:
        pytest.fail(said, pytrace=False)
