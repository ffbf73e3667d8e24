"""Defaults of columns that are made in Python."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def maker_of_default(column: Any) -> Callable[[], Any] | None:
    """Give what makes the default of ``column``, anew for each row.

    None where that is an expression of SQL, a sequence, or a function that is given SQLAlchemy's execution context.
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
    """Say whether the user's function, which SQLAlchemy keeps in ``__wrapped__`` if it takes nothing, needs an argument."""
    try:
        parameters = inspect.signature(call).parameters.values()
    except ValueError:
        # Python does not know what dict, int and the like take; SQLAlchemy gives them nothing.
        return not isinstance(getattr(call, "__wrapped__", None), type)
    return any(one.default is one.empty and one.kind not in {one.VAR_POSITIONAL, one.VAR_KEYWORD} for one in parameters)
