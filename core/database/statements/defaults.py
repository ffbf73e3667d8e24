"""Defaults of columns that Python makes, and not the database."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def maker_of_default(column: Any) -> Callable[[], Any] | None:
    """Return a function that makes the default of ``column`` for one row.

    Return None if the default is an SQL expression, a sequence, or a function that takes SQLAlchemy's execution context.
    """
    default = column.default
    if default.is_scalar:
        value = default.arg
        return lambda: value
    if not default.is_callable:
        return None
    call = default.arg
    return None if _takes_context(call) else lambda: call(None)


def _takes_context(call: Any) -> bool:
    """Return whether the user's function needs an argument. SQLAlchemy keeps it in ``__wrapped__`` if it takes none."""
    try:
        parameters = inspect.signature(call).parameters.values()
    except ValueError:
        # dict, int and the like have no signature that Python can read. SQLAlchemy passes them nothing.
        return not isinstance(getattr(call, "__wrapped__", None), type)
    return any(one.default is one.empty and one.kind not in {one.VAR_POSITIONAL, one.VAR_KEYWORD} for one in parameters)
