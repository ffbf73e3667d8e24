"""The command `make`: write the first version of a controller, model, router, middleware or test."""

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
MAX_NAME = 60
# The files that are made import these names, so that no class in them may have one.
RESERVED = {
    "Any",
    "Base",
    "Context",
    "Controller",
    "DateTime",
    "Handler",
    "Mapped",
    "Middleware",
    "Model",
    "Router",
    "String",
}


class Kind(StrEnum):
    """The kinds of files that can be made."""

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
    """The names of one thing, made from the name that a person gave.

    - ``name``: the name of its module, such as ``meter_reading``.
    - ``class_``: the name of its class, such as ``MeterReading``.
    - ``table``: the name of its table, and the first level of its topics, such as ``meter_readings``.
    """

    name: str
    class_: str
    table: str

    @classmethod
    def of(cls, kind: Kind, given: str) -> Names:
        """Return the names for ``given``, which may be written in any case. Raise ScaffoldError if it cannot be a name."""
        words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", given)]
        if len(words) > 1 and kind is not Kind.MODEL:
            # The kind is not said twice: of MeterController and test_meter, only the meter is kept.
            words = words[:-1] if words[-1] == kind else words[1:] if words[0] == kind is Kind.TEST else words
        name = "_".join(words)
        class_ = "".join(word.capitalize() for word in words)
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_ -]*", given) or keyword.iskeyword(name) or len(name) > MAX_NAME:
            raise ScaffoldError(
                f"{given[:MAX_NAME]!r} cannot be the name of a {kind}; use letters and digits, such as MeterReading or "
                "meter_reading, and no keyword of Python"
            )
        if keyword.iskeyword(class_) or (class_ in RESERVED and kind in {Kind.MODEL, Kind.MIDDLEWARE}):
            raise ScaffoldError(
                f"{given!r} would make a class {class_}, and its file needs this name for something else; use another name"
            )
        return cls(name, class_, _plural(name))


def make(kind: Kind, given: str, say: Callable[[str], None], root: Path | None = None) -> None:
    """Write the first version of a ``kind``, and say what to do next.

    - ``kind``: what to make.
    - ``given``: its name, in any case.
    - ``say``: prints a line.
    - ``root``: the folder of the project. By default it is the current one.

    Files of the same name are used: a controller stores rows of the model, a router calls the first method of the
    controller, and a test sends a message to the router. Raise ScaffoldError if ``given`` cannot be a name, if the file
    exists, or if another model has the table.
    """
    root = root or Path()
    names = Names.of(kind, given)
    folder = root / FOLDERS[kind]
    stem = {Kind.CONTROLLER: f"{names.name}_controller", Kind.TEST: f"test_{names.name}"}.get(kind, names.name)
    file = folder / f"{stem}.py"
    if kind is Kind.MODEL:
        for other in sorted(folder.glob("*.py")):
            if other != file and f'__tablename__ = "{names.table}"' in other.read_text():
                raise ScaffoldError(f"{other} has the table {names.table} already; use another name")
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
        raise ScaffoldError(
            f"{file} exists already and is not changed; choose another name, or remove the file first"
        ) from None
    say(f"made {file}")
    for line in _next_steps(kind, names):
        say(f"  {line}")


def _template(kind: Kind, names: Names, root: Path) -> tuple[str, str]:
    """Return the template that fits the files of the same name, and the controller's method for a router."""
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
    """Return the name of the first public async method of ``class_`` in ``source``, or an empty text if there is none."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    body = next((node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_), [])
    methods = (node.name for node in body if isinstance(node, ast.AsyncFunctionDef))
    return next((name for name in methods if not name.startswith("_")), "")


def _next_steps(kind: Kind, names: Names) -> list[str]:
    """Return lines that say what to do with the file that was made."""
    publish = f"""python main.py publish {names.table}/42 '{{"value": 21.5}}'"""
    return {
        Kind.CONTROLLER: [
            "write in its method what happens to a message: context['params'] and context['payload'] hold it",
            f"make a router that gives it messages: python main.py make router {names.name}",
        ],
        Kind.MODEL: [
            "change its columns to those that you need",
            f'write a migration that makes its table: python main.py db revision -m "{names.name}"',
            f"make a controller that stores messages in it: python main.py make controller {names.name}",
        ],
        Kind.ROUTER: [
            "see its routes: python main.py routes",
            f"start the worker again, and send a message: {publish}",
        ],
        Kind.MIDDLEWARE: [
            f"import it in a router: from app.middleware.{names.name} import {names.class_}",
            f"run it around one route: router.on(..., middleware=[{names.class_}])",
            f"run it around all routes of a router: Router(middleware=[{names.class_}])",
        ],
        Kind.TEST: [f"run it: .venv/bin/python -m pytest tests/test_{names.name}.py"],
    }[kind]


def _plural(name: str) -> str:
    if re.search(r"[^aeiou]y$", name):
        return f"{name[:-1]}ies"
    if re.search(r"(s|x|z|ch|sh)$", name):
        return name if re.search(r"[^sui]s$", name) else f"{name}es"
    return f"{name}s"
