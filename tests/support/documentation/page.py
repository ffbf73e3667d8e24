"""Run the Python blocks of one page, in order and in one namespace, as its reader would.

``python -m tests.support.documentation.page PAGE REPORT`` is a process of its own, because blocks define models, register
codecs and are modules of an application. The application stands in the current folder: that of this repository, with the
files that README.md tells its reader to write. Code that awaits has its database, and a ``TestClient`` of the page's
``router`` and controllers as ``client``.
"""

from __future__ import annotations

import ast
import asyncio
import gc
import importlib
import inspect
import json
import shutil
import sys
import traceback
import warnings
from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bootstrap import storage
from bootstrap.discovery import import_models
from core.controller import Controller
from core.model import Model
from core.router import Router
from core.testing import TestClient
from tests.support.documentation.blocks import ROOT, Block, Piece, blocks_of
from tests.support.documentation.migration import run_migration
from tests.support.mosquitto import free_pair
from tests.support.worker import Project, clean_environment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DATABASE_URL = "sqlite+aiosqlite:///storage/routemq.db"
PYTEST = '[tool.pytest.ini_options]\nasyncio_mode = "auto"\nasyncio_default_fixture_loop_scope = "function"\n'


def application(folder: Path) -> Project:
    """Make the application in ``folder``."""
    shutil.copytree(ROOT / "app", folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pyproject.toml").write_text(PYTEST)
    for block in blocks_of(ROOT / "README.md"):
        if block.kind == "file":
            (folder / block.argument).write_text(source(block))
    return Project(folder).set(MQTT_URL=f"embedded://127.0.0.1:{free_pair()}")


def source(block: Block) -> str:
    """Return the text of a file that has the block, after what is given."""
    return "\n".join(piece.code for piece in [*block.given, block.piece])


class Page:
    """The blocks of a page, and the namespace in which they run."""

    def __init__(self, page: Path, project: Project) -> None:
        self.blocks = blocks_of(page)
        self._page = page
        self._project = project
        # A module, because pydantic and SQLAlchemy look names up in the module of a class.
        module = ModuleType(f"page_{page.stem}")
        sys.modules[module.__name__] = module
        self._namespace: dict[str, Any] = vars(module)
        self._stack = AsyncExitStack()
        self._is_open = False

    async def run(self, block: Block) -> None:
        """Run a block, with what is given before it and what follows from it. Raise what it raises, or AssertionError."""
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            async with AsyncExitStack() as self._stack:
                self._is_open = False
                await self._run(block)
            gc.collect()
        assert not said, f"it warns: {'; '.join(str(each.message) for each in said)}"

    async def _run(self, block: Block) -> None:
        if block.kind == "file":
            self._import_file(block.argument, source(block))
        elif block.kind == "part of":
            file = self._project.folder / block.argument
            self._import_file(block.argument, with_members(file.read_text(), block.piece.code))
        elif block.kind == "as a migration on":
            await run_migration(self._project.folder, source(block), block.argument)
        elif any(line.startswith(("def test_", "async def test_")) for line in block.piece.code.splitlines()):
            await self._run_tests(source(block))
        else:
            await self._run_code(block)
        for piece in block.then:
            await self._execute(piece)

    async def _run_code(self, block: Block) -> None:
        for piece in block.given:
            await self._execute(piece)
        if block.kind == "in a handler":
            await self._run_in_a_handler(block.piece)
        elif block.kind == "as a script":
            await self._run_as_a_script(block.piece)
        else:
            await self._execute(block.piece)

    async def _execute(self, piece: Piece) -> None:
        # Empty lines before it give tracebacks and places of routes the numbers of the page's lines.
        text = "\n" * (piece.line - 1) + piece.code
        code = compile(text, str(self._page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        if code.co_flags & inspect.CO_COROUTINE or "client" in code.co_names:
            await self._open()
        result = eval(code, self._namespace)
        if result is not None:
            await result

    async def _open(self, handler: Callable[[Any], Awaitable[None]] | None = None) -> None:
        """Open the database with the tables of all models that are known by now, and the test client."""
        if self._is_open:
            return
        self._is_open = True
        import_models()
        await storage.prepare(upgrades=True)
        router = Router()
        if isinstance(self._namespace.get("router"), Router):
            router.include(self._namespace["router"])
        if handler is not None:
            router.on("the/handler/of/a/block", handler)
        classes = {value for value in self._namespace.values() if inspect.isclass(value)} - {Controller}
        controllers = [each for each in classes if issubclass(each, Controller)]
        self._namespace["client"] = await self._stack.enter_async_context(TestClient(router, controllers=controllers))

    async def _run_in_a_handler(self, piece: Piece) -> None:
        async def handler(context: Any) -> None:
            self._namespace["context"] = context
            await self._execute(piece)

        await self._open(handler)
        await self._namespace["client"].send("the/handler/of/a/block", {})

    async def _run_as_a_script(self, piece: Piece) -> None:
        (self._project.folder / "script.py").write_text(piece.code)
        worker = self._project.start()
        try:
            await worker.ready()
            await run("script.py")
            assert await worker.stop() == 0, worker.output
        finally:
            if worker.process.poll() is None:
                worker.kill()

    async def _run_tests(self, text: str) -> None:
        (self._project.folder / "test_of_the_page.py").write_text(text)
        await run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "test_of_the_page.py")

    def _import_file(self, name: str, text: str) -> None:
        """Write a file of the application and import it; its names are those of the page from then on."""
        (self._project.folder / name).write_text(text)
        importlib.invalidate_caches()
        module = importlib.import_module(name.removesuffix(".py").replace("/", "."))
        self._namespace |= {key: value for key, value in vars(module).items() if not key.startswith("__")}


async def run(*arguments: str) -> None:
    """Run Python in the folder of the application; raise AssertionError with its output if it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=clean_environment(),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output


def with_members(file: str, code: str) -> str:
    """Return the text of ``file`` with what ``code`` adds to a class of it; ``...`` stands for what is there."""
    added = ast.parse(code).body[0]
    assert isinstance(added, ast.ClassDef)
    there = next(node for node in ast.parse(file).body if isinstance(node, ast.ClassDef) and node.name == added.name)
    assert [ast.unparse(base) for base in added.bases] == [ast.unparse(base) for base in there.bases]
    lines, new = file.splitlines(), code.splitlines()
    for node in added.body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.value.value is ...:
            continue
        lines[there.end_lineno : there.end_lineno] = new[node.lineno - 1 : node.end_lineno]
    return "\n".join([*lines, ""])


async def main(page: Path, report: Path) -> None:
    """Run the blocks of ``page``, and write to ``report`` what became of each, by its line: the traceback, or nothing."""
    Model.configure(DATABASE_URL)
    running = Page(page, application(Path.cwd()))
    ends: dict[int, str] = {}
    for block in running.blocks:
        try:
            await running.run(block)
            ends[block.line] = ""
        except Exception:
            # Whatever a block raises is reported.
            ends[block.line] = traceback.format_exc()
    report.write_text(json.dumps(ends))
    await Model.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
