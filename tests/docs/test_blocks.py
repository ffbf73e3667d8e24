"""Every Python block of README.md and docs/ runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks_of, pages
from tests.worker import clean_environment

BLOCKS = [(page, block.line) for page in pages() for block in blocks_of(page)]


def run(page: Path, folder: Path) -> dict[int, str]:
    """Run the blocks of ``page`` in ``folder``, and return the traceback of each by its line, empty where it ran."""
    report = folder / "report.json"
    command = [sys.executable, "-m", "tests.docs.page", str(page), str(report)]
    ended = subprocess.run(
        command,
        cwd=folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return {int(line): f"{said}\n{ended.stdout}" if said else "" for line, said in json.loads(report.read_text()).items()}


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
