"""A soak runs the tests of each case many times, and ends with a table of all cases."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.cases import CASES, RUNS

ROOT = Path(__file__).parents[2]
TEST = """
import pytest

@pytest.mark.case(NUMBER)
@pytest.mark.parametrize("value", [1, 2])
def test_it(value):
    assert value == 1

def test_of_no_case():
    pass
"""


def soak(folder: Path, number: int, *more: str) -> str:
    """Run a soak over a test of the case ``number``, which fails for one of its two values, and return what it says."""
    file = folder / "test_soaked.py"
    file.write_text(TEST.replace("NUMBER", str(number)))
    command = [sys.executable, "-m", "pytest", str(file), "-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", *more]
    environment = os.environ | {"ROUTEMQ_SOAK": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False).stdout


def rows(said: str) -> dict[int, list[str]]:
    table = said.partition(" cases ")[2].splitlines()[2:]
    found = (re.split(r"  +", line.strip()) for line in table)
    return {int(cells[0]): cells[1:] for cells in found if len(cells) == 6}


def test_each_case_is_a_row_with_what_came_of_it(tmp_path: Path) -> None:
    for more in ((), ("-n", "2")):
        found = rows(soak(tmp_path, 3, *more))
        assert found.keys() == CASES.keys()
        assert found.pop(3) == [CASES[3], "1", str(2 * RUNS), str(RUNS), "0"]
        assert all(cells[1:] == ["0", "0", "0", "0"] for cells in found.values())


def test_a_case_that_there_is_not_is_an_error(tmp_path: Path) -> None:
    assert "is of case 99, and tests/support/cases.py has no such case" in soak(tmp_path, 99)
