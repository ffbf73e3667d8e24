"""Writes the first version of a controller, model, router, middleware or test."""

from __future__ import annotations

import ast
import keyword
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from core.errors import ScaffoldError

if TYPE_CHECKING:
    from collections.abc import Callable

TEMPLATES = Path(__file__).parent / "templates"
LONGEST_NAME = 60
# A class of this name would stand in the way of what its own file imports.
TAKEN = {"Any", "Base", "Context", "Controller", "DateTime", "Handler", "Mapped", "Middleware", "Model", "Router", "String"}


class Kind(StrEnum):
    """What can be made."""

    CONTROLLER = "controller"
    MODEL = "model"
    ROUTER = "router"
    MIDDLEWARE = "middleware"
    TEST = "test"


FOLDERS = {
    Kind.CONTROLLER: "app/controllers",
    Kind.MODEL: "app/models",
    Kind.ROUTER: "app/routers",
    Kind.MIDDLEWARE: "app/middleware",
    Kind.TEST: "tests",
}


@dataclass(frozen=True, slots=True)
class Names:
    """What one thing is called: ``meter_reading``, ``MeterReading``, and its rows and topics ``meter_readings``."""

    name: str
    class_: str
    table: str

    @classmethod
    def of(cls, kind: Kind, given: str) -> Names:
        """Make them of a name as a person gives it, in any case. Raises ScaffoldError for what can be no name."""
        words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", given)]
        if len(words) > 1 and kind is not Kind.MODEL:
            # MeterController and test_meter say twice what they are.
            words = words[:-1] if words[-1] == kind else words[1:] if words[0] == kind is Kind.TEST else words
        name = "_".join(words)
        class_ = "".join(word.capitalize() for word in words)
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_ -]*", given) or keyword.iskeyword(name) or len(name) > LONGEST_NAME:
            raise ScaffoldError(
                f"{given[:LONGEST_NAME]!r} is no name for a {kind}; write letters and digits, such as MeterReading or "
                "meter_reading, and no word of Python's own"
            )
        if keyword.iskeyword(class_) or (class_ in TAKEN and kind in {Kind.MODEL, Kind.MIDDLEWARE}):
            raise ScaffoldError(
                f"{given!r} would make a class {class_}, which is what another thing is called; name it anew"
            )
        return cls(name, class_, _plural(name))


def make(kind: Kind, given: str, say: Callable[[str], None], root: Path | None = None) -> None:
    """Write the file for a new ``kind`` named ``given`` below ``root`` (default: here), and say what to do next.

    What is there already is used: a controller stores into the model of its name, a router takes the controller's first
    method, a test sends to the router. Raises ScaffoldError for what can be no name, and where the file is there already.
    """
    root = root or Path()
    names = Names.of(kind, given)
    folder = root / FOLDERS[kind]
    stem = {Kind.CONTROLLER: f"{names.name}_controller", Kind.TEST: f"test_{names.name}"}.get(kind, names.name)
    file = folder / f"{stem}.py"
    if kind is Kind.MODEL:
        for other in sorted(folder.glob("*.py")):
            if other != file and f'__tablename__ = "{names.table}"' in other.read_text():
                raise ScaffoldError(f"{other} has the table {names.table} already; give another name")
    template, method = _template(kind, names, root)
    values = {"name": names.name, "class_": names.class_, "table": names.table, "method": method}
    source = Template((TEMPLATES / f"{template}.txt").read_text()).substitute(values)
    if kind is not Kind.TEST:
        for package in (folder.parent, folder):
            package.mkdir(parents=True, exist_ok=True)
            (package / "__init__.py").touch()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("x") as new:
            new.write(source)
    except FileExistsError:
        raise ScaffoldError(f"{file} is there already and stays as it is; give another name, or remove it first") from None
    say(f"made {file}")
    for line in _next(kind, names):
        say(f"  {line}")


def _template(kind: Kind, names: Names, root: Path) -> tuple[str, str]:
    """Give the template to use, by what is there already, and the controller's method for a router."""
    model = _source(root / FOLDERS[Kind.MODEL] / f"{names.name}.py")
    fits = all(f"\n    {column}: Mapped" in model for column in ("device_id", "value")) and f"class {names.class_}(" in model
    if kind is Kind.CONTROLLER:
        return ("controller_with_model" if fits else "controller"), ""
    if kind is Kind.ROUTER:
        controller = _source(root / FOLDERS[Kind.CONTROLLER] / f"{names.name}_controller.py")
        method = _first_method(controller, f"{names.class_}Controller")
        return ("router_with_controller" if method else "router"), method
    if kind is Kind.TEST:
        router = _source(root / FOLDERS[Kind.ROUTER] / f"{names.name}.py")
        if f'"{names.table}/<device_id>"' not in router:
            return "test", ""
        stores = f"Model.create({names.class_}" in _source(root / FOLDERS[Kind.CONTROLLER] / f"{names.name}_controller.py")
        return ("test_with_model" if fits and stores else "test_with_router"), ""
    return kind.value, ""


def _source(file: Path) -> str:
    return file.read_text() if file.is_file() else ""


def _first_method(source: str, class_: str) -> str:
    """Give the name of the first public async method of ``class_`` in ``source``; empty where there is none."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    body = next((node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_), [])
    methods = (node.name for node in body if isinstance(node, ast.AsyncFunctionDef))
    return next((name for name in methods if not name.startswith("_")), "")


def _next(kind: Kind, names: Names) -> list[str]:
    """Give what to do next."""
    publish = f"""python main.py publish {names.table}/42 '{{"value": 21.5}}'"""
    return {
        Kind.CONTROLLER: [
            "write what is to happen in its method; context['params'] and context['payload'] have the message",
            f"python main.py make router {names.name}   gives it its messages",
        ],
        Kind.MODEL: [
            f'give it the columns that it needs, then: python main.py db revision -m "{names.name}"   makes its table',
            f"python main.py make controller {names.name}   stores messages in it",
        ],
        Kind.ROUTER: ["python main.py routes   shows it; with the worker started anew:", publish],
        Kind.MIDDLEWARE: [
            f"from app.middleware.{names.name} import {names.class_}",
            f"router.on(..., middleware=[{names.class_}])   runs it around one route, Router(middleware=[...]) around all",
        ],
        Kind.TEST: [f".venv/bin/python -m pytest tests/test_{names.name}.py"],
    }[kind]


def _plural(name: str) -> str:
    if re.search(r"[^aeiou]y$", name):
        return f"{name[:-1]}ies"
    if re.search(r"(s|x|z|ch|sh)$", name):
        return name if re.search(r"[^sui]s$", name) else f"{name}es"
    return f"{name}s"
