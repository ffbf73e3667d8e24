"""Every command that README.md and docs/ name is there, and docs/cli.md names every one that is there."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache

import pytest

from tests.support.documentation.blocks import ROOT, pages
from tests.support.worker import clean_environment

# `python main.py db upgrade`, and what follows the command is an argument where the command has no commands of its own.
NAMED = re.compile(r"\bpython main\.py(?: +([a-z][a-z-]*))?(?: +([a-z][a-z-]*))?")
_named = {
    f"{page.relative_to(ROOT)}:{number}:{found[0]}": (found[1], found[2])
    for page in pages()
    for number, line in enumerate(page.read_text().splitlines(), 1)
    for found in NAMED.finditer(line)
}


@cache
def commands(*group: str) -> list[str]:
    """Return the commands that ``main.py --help`` shows, or those of a group of commands."""
    shown = subprocess.run(
        [sys.executable, "main.py", *group, "--help"],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    return re.findall(r"^  ([a-z][a-z-]*)(?:  |$)", shown.partition("Commands:")[2], re.MULTILINE)


@pytest.mark.parametrize("named", [pytest.param(words, id=name) for name, words in _named.items()])
def test_a_command_that_a_page_names_is_there(named: tuple[str | None, str | None]) -> None:
    command, own = named
    if command is not None:
        assert command in commands()
        assert own is None or not commands(command) or own in commands(command)


def test_the_table_names_every_command() -> None:
    lines = (ROOT / "docs" / "cli.md").read_text().splitlines()
    cells = [line.split(" | ")[0] for line in lines if line.startswith("| `")]
    named = {re.findall("[a-z-]+", cell)[0]: "" for cell in cells}
    for cell in cells:
        named[re.findall("[a-z-]+", cell)[0]] += cell
    assert sorted(named) == sorted(commands())
    for command, cell in named.items():
        assert set(commands(command)) <= set(re.findall("[a-z-]+", cell)), command
