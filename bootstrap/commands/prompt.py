"""A Python prompt in which await works: statements run on an event loop in a thread beside the prompt's."""

from __future__ import annotations

import ast
import asyncio
import code
import inspect
import linecache
import sys
import threading
import traceback
from contextlib import suppress
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import CodeType

T = TypeVar("T")

FILENAME = "<shell>"
PATIENCE = 10.0


class Background:
    """An event loop in a thread of its own, so that what runs on it goes on while the prompt waits for a line."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="event loop", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Give what ``coroutine`` gives, or raise what it raises.

        Ctrl-C cancels it; a second one leaves it alone, should it not listen, and raises KeyboardInterrupt.
        """
        task: asyncio.Task[T] | None = None

        async def run() -> T:
            nonlocal task
            task = asyncio.current_task()
            return await coroutine

        future = asyncio.run_coroutine_threadsafe(run(), self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            if task is not None:
                self._loop.call_soon_threadsafe(task.cancel)
            return future.result()

    def stop(self) -> None:
        """End the loop, and what still runs on it."""
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop)
        self._thread.join(PATIENCE)
        if not self._thread.is_alive():
            self._loop.close()


async def _cancel_all() -> None:
    loop = asyncio.get_running_loop()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=PATIENCE / 2)
    await loop.shutdown_asyncgens()
    loop.stop()


class Console(code.InteractiveConsole):
    """A prompt for ``names``, whose statements run on ``background``; errors are shown and end the statement alone."""

    def __init__(self, names: dict[str, Any], background: Background) -> None:
        super().__init__(names, FILENAME)
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._names = names
        self._background = background

    def runcode(self, code: CodeType) -> None:
        """Run one statement. Raises SystemExit."""
        self._run(code)

    def run_script(self, source: str) -> int:
        """Run the statements of ``source`` up to the first that fails; give the exit code. Raises SystemExit."""
        linecache.cache[FILENAME] = (len(source), None, source.splitlines(keepends=True), FILENAME)
        allowed = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        try:
            statements = compile(source, FILENAME, "exec", allowed | ast.PyCF_ONLY_AST, dont_inherit=True).body
        except (SyntaxError, ValueError) as error:
            _show(error)
            return 1
        for statement in statements:
            # As at the prompt: what an expression gives is shown.
            one = compile(ast.Interactive([statement]), FILENAME, "single", allowed, dont_inherit=True)
            if not self._run(one):
                return 1
        return 0

    def _run(self, statement: CodeType) -> bool:
        """Run a statement, show what it raised, and say whether it raised nothing. Raises SystemExit."""
        try:
            error = self._background.run(_outcome(statement, self._names))
        except KeyboardInterrupt:
            error = asyncio.CancelledError()
        if isinstance(error, SystemExit):
            raise error
        if error is not None:
            _show(error)
        return error is None


async def _outcome(statement: CodeType, names: dict[str, Any]) -> BaseException | None:
    """Run a statement and give what it raised: a SystemExit must not come out of a task, which would end the loop."""
    try:
        value = FunctionType(statement, names)()
        if statement.co_flags & inspect.CO_COROUTINE:
            await value
    except BaseException as error:  # noqa: BLE001 - whatever a statement raises is shown
        return error
    return None


def _show(error: BaseException) -> None:
    sys.stdout.flush()
    if isinstance(error, asyncio.CancelledError):
        sys.stderr.write("\nKeyboardInterrupt\n")
        return
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != FILENAME:
        frames = frames.tb_next
    traceback.print_exception(type(error), error, frames)


def complete_names(names: dict[str, Any]) -> None:
    """Have Tab complete ``names``, where Python was built with readline."""
    with suppress(ImportError):
        import readline  # noqa: PLC0415 - not on all platforms
        import rlcompleter  # noqa: PLC0415

        readline.set_completer(rlcompleter.Completer(names).complete)
        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
