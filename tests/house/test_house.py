"""What holds for every file and every room. The direction of imports is held by import-linter (see pyproject.toml)."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    file.relative_to(ROOT).as_posix()
    for package in ("app", "bootstrap", "config", "core")
    for file in (ROOT / package).rglob("*.py")
)
ROOMS = sorted({str(Path(file).parent) for file in FILES if file.startswith(("bootstrap", "core"))})
MAX_FILES = 12
MAX_PARAMETERS = 6
RIDDLES = re.compile(r"(Give|Gives|Take note|Say)\b")


def parsed(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_holds_few_files(room: str) -> None:
    files = [file.name for file in (ROOT / room).glob("*.py") if file.name != "__init__.py"]
    assert len(files) <= MAX_FILES, f"{room} holds {len(files)} files: {', '.join(sorted(files))}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_for(room: str) -> None:
    if not any((ROOT / room).glob("*.py")) or room.endswith(("versions", "alembic")):
        pytest.skip("a folder of Alembic's")
    assert ast.get_docstring(parsed(f"{room}/__init__.py")), f"{room}/__init__.py has no docstring"


@pytest.mark.parametrize("file", FILES)
def test_no_constructor_takes_more_than_six_parameters(file: str) -> None:
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs][1:]
            assert len(taken) <= MAX_PARAMETERS, f"{file}:{node.lineno} takes {len(taken)} parameters"


@pytest.mark.parametrize("file", FILES)
def test_docstrings_are_plain(file: str) -> None:
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            said = ast.get_docstring(node) or ""
            assert not RIDDLES.match(said), f"{file}: {getattr(node, 'name', 'the module')} begins with {said[:40]!r}"


def test_the_page_on_architecture_shows_the_layers_that_are_held() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = {contract["id"]: contract["layers"] for contract in contracts if contract["type"] == "layers"}
    held = [layer.split(" | ") for layer in layers["house"][:-1]]
    held += [[f"core/{room}" for room in layer.split(" | ")] for layer in layers["core"]]
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    shown = page.partition("imports only from rows below its own:\n\n")[2].partition("\n\n")[0]
    assert [line.strip().split(", ") for line in shown.splitlines()] == held


@pytest.mark.parametrize("room", ROOMS)
def test_the_page_on_architecture_names_every_room(room: str) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = [room, str(Path(room).parent)] if room.count("/") > 1 else [room]
    assert any(f"`{name}/`" in page or f"`{Path(name).name}/`" in page for name in named) or room == "core"
