"""A Python prompt in which await works. Its statements run on an event loop in a thread of its own."""

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
MAX_STOP = 10.0
"""Seconds that what still runs may take to end with the prompt."""


class LoopThread:
    """An event loop in a thread of its own. What runs on it goes on while the prompt waits for a line."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="event loop", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return what ``coroutine`` returns, or raise what it raises.

        Ctrl-C cancels it. A second Ctrl-C no longer waits for it to end, and raises KeyboardInterrupt.
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
        """Stop the loop, and cancel what still runs on it."""
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop)
        self._thread.join(MAX_STOP)
        if not self._thread.is_alive():
            self._loop.close()


async def _cancel_all() -> None:
    loop = asyncio.get_running_loop()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=MAX_STOP / 2)
    await loop.shutdown_asyncgens()
    loop.stop()


class Prompt(code.InteractiveConsole):
    """A prompt whose statements use ``names`` and run on ``loop``. An error is shown, and ends its statement only."""

    def __init__(self, names: dict[str, Any], loop: LoopThread) -> None:
        super().__init__(names, FILENAME)
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._names = names
        self._loop = loop

    def runcode(self, code: CodeType) -> None:
        """Run one statement. Raise SystemExit if it does."""
        self._run(code)

    def run_script(self, source: str) -> int:
        """Run the statements of ``source`` up to the first that fails. Return the exit code.

        Raise SystemExit if a statement does.
        """
        linecache.cache[FILENAME] = (len(source), None, source.splitlines(keepends=True), FILENAME)
        allowed = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        try:
            statements = compile(source, FILENAME, "exec", allowed | ast.PyCF_ONLY_AST, dont_inherit=True).body
        except (SyntaxError, ValueError) as error:
            _print_error(error)
            return 1
        for statement in statements:
            # The value of an expression is printed, as at the prompt.
            one = compile(ast.Interactive([statement]), FILENAME, "single", allowed, dont_inherit=True)
            if not self._run(one):
                return 1
        return 0

    def _run(self, statement: CodeType) -> bool:
        """Run a statement and show what it raises. Return whether it raised nothing. Raise SystemExit if it does."""
        try:
            error = self._loop.run(_error_of(statement, self._names))
        except KeyboardInterrupt:
            error = asyncio.CancelledError()
        if isinstance(error, SystemExit):
            raise error
        if error is not None:
            _print_error(error)
        return error is None


async def _error_of(statement: CodeType, names: dict[str, Any]) -> BaseException | None:
    """Run a statement and return what it raised. It is not raised here, because a SystemExit of a task ends the loop."""
    try:
        value = FunctionType(statement, names)()
        if statement.co_flags & inspect.CO_COROUTINE:
            await value
    except BaseException as error:  # noqa: BLE001 - whatever a statement raises is shown
        return error
    return None


def _print_error(error: BaseException) -> None:
    sys.stdout.flush()
    if isinstance(error, asyncio.CancelledError):
        sys.stderr.write("\nKeyboardInterrupt\n")
        return
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != FILENAME:
        frames = frames.tb_next
    traceback.print_exception(type(error), error, frames)


def complete_names(names: dict[str, Any]) -> None:
    """Let the Tab key complete ``names``, if Python was built with readline."""
    with suppress(ImportError):
        import readline  # noqa: PLC0415 - not on all platforms
        import rlcompleter  # noqa: PLC0415

        readline.set_completer(rlcompleter.Completer(names).complete)
        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
