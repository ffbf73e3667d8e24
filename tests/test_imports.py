"""The house of docs/architecture.md: a file imports only from floors below its own."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("app", "bootstrap", "config", "core")
FILES = sorted(
    str(file.relative_to(ROOT))
    for file in [ROOT / "main.py", *(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))]
    if file.name != "__init__.py"
)


def floors() -> list[list[str]]:
    """Give the floors as lists of file patterns, the top one first."""
    block = (ROOT / "docs" / "architecture.md").read_text().partition("## The house")[2].partition("## ")[0]
    found = []
    for line in re.findall(r"^    (\S.*)$", block, re.MULTILINE):
        folder, names = "", []
        for word in line.split():
            if word.endswith("/"):
                folder = word
            else:
                names.append(word if word.endswith(".py") else f"{folder}{word}.py")
        found.append(names)
    return found


def floor_of(file: str) -> int:
    at = [number for number, names in enumerate(floors()) for name in names if Path(file).match(name)]
    assert len(at) == 1, f"{file} stands on {len(at)} floors of docs/architecture.md"
    return at[0]


def imported(file: str) -> set[str]:
    """Give the project's files that ``file`` imports when it runs, also within functions."""
    tree = ast.parse((ROOT / file).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    found = set()
    for node in ast.walk(tree):
        modules = []
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
        elif isinstance(node, ast.Import):
            modules = [name.name for name in node.names]
        found |= {f"{module.replace('.', '/')}.py" for module in modules}
    return found & set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_a_file_imports_only_from_floors_below_its_own(file: str) -> None:
    own = floor_of(file)
    wrong = {other for other in imported(file) if floor_of(other) <= own}
    assert not wrong, f"{file} imports from its own floor or one above: {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("core/")])
def test_the_framework_knows_nothing_of_the_application(file: str) -> None:
    assert not {other for other in imported(file) if other.startswith(("app/", "bootstrap/", "config/"))}


@pytest.mark.parametrize("file", FILES)
def test_only_the_transports_import_an_mqtt_library(file: str) -> None:
    source = (ROOT / file).read_text()
    imports = re.findall(r"^\s*(?:import|from) (paho|aiomqtt|iotcore|mqtt5)\b", source, re.MULTILINE)
    assert not imports or file.startswith("core/transport/")
