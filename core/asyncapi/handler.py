"""What the source of a handler tells: its docstring, and the type that it returns."""

from __future__ import annotations

import inspect
import re
from functools import partial
from types import FunctionType, NoneType, UnionType
from typing import TYPE_CHECKING, Any, Never, NoReturn, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Callable

NOTHING = object()
"""Returned by ``returned`` if the handler's annotation says that it returns nothing."""
UNKNOWN = object()
"""Returned by ``returned`` if the handler has no annotation, or one that cannot be read."""


def docs(handler: Callable[..., Any]) -> tuple[str, str]:
    """Return the first paragraph of the docstring on one line, and the rest. Both are empty if there is no docstring."""
    function = _function(handler)
    text = inspect.getdoc(function) if function is not None else None
    first, _, rest = (text or "").strip().partition("\n\n")
    return " ".join(first.split()), re.sub(r"\n{3,}", "\n\n", rest).strip()


def returned(handler: Callable[..., Any]) -> Any:
    """Return the type that the handler returns, NOTHING or UNKNOWN. None is left out of it, as it sends no reply."""
    function = _function(handler)
    if function is None or "return" not in function.__annotations__:
        return UNKNOWN

    # Read this annotation alone. Those of the parameters often name what is imported only for type checkers.
    def stand_in() -> None:
        pass

    stand_in.__annotations__ = {"return": function.__annotations__["return"]}
    try:
        found = get_type_hints(stand_in, function.__globals__, include_extras=True)["return"]
    except (NameError, TypeError, AttributeError, SyntaxError):
        return UNKNOWN
    if found in {NoneType, Never, NoReturn}:
        return NOTHING
    if get_origin(found) in {Union, UnionType}:
        return Union[tuple(one for one in get_args(found) if one is not NoneType)]  # noqa: UP007 - made at run time
    return found


def _function(handler: Callable[..., Any]) -> FunctionType | None:
    """Return the function behind a method, decorator, partial or callable object. Return None if there is none."""
    found: Any = handler
    while isinstance(found, partial):
        found = found.func
    found = inspect.unwrap(found)
    if not inspect.isroutine(found):
        found = getattr(type(found), "__call__", None)  # noqa: B004 - the method itself is wanted, not whether it exists
    found = getattr(found, "__func__", found)
    return found if isinstance(found, FunctionType) else None
