"""Middleware: what runs around handlers."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from core.errors import RouteError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.context import Context
    from core.mqtt.topics import Pattern

Handler = Callable[[Any], Awaitable[Any]]
"""Takes the context, and returns the reply or None."""


class Passed(Enum):
    """What middleware returns, in the place of a reply, for a message that it did not hand on. The message is then done."""

    DUPLICATE = "the message was handled before"
    DROPPED = "the message is dropped on purpose"


class Middleware:
    """The parent of your middleware. It is given to a router, a group or a route. Of several, the first is the outermost.

    ``handle`` runs in the place of the handler. It may:

    - read and change the context, and put values into ``context["state"]``;
    - call ``next_handler`` or not;
    - change what ``next_handler`` returns or raises.
    """

    async def handle(self, context: Context[Any], next_handler: Handler) -> Any:
        """Handle one message, and return the reply or None. The method of this class hands the message on as it is."""
        return await next_handler(context)

    def registered(self, pattern: Pattern) -> None:
        """Check the pattern of a route that the middleware is given to. Raise RouteError where it cannot stand there."""
        return


MiddlewareLike = Middleware | type[Middleware] | Callable[[Any, Handler], Awaitable[Any]]
"""A Middleware, its class where that takes no arguments, or an async function of context and next handler."""


def fold(handler: Handler, middleware: Sequence[MiddlewareLike]) -> Handler:
    """Return one callable that runs ``handler`` within ``middleware``, the first outermost.

    Raise RouteError for a class that cannot be made without arguments, and for anything that is not middleware.
    """
    for around in reversed(middleware):
        handler = _within(_callable(around), handler)
    return handler


def _callable(around: MiddlewareLike) -> Callable[[Any, Handler], Awaitable[Any]]:
    if isinstance(around, type) and issubclass(around, Middleware):
        try:
            around = around()
        except TypeError as error:
            raise RouteError(
                f"middleware {around} cannot be made without arguments ({error}). Give an instance of it"
            ) from error
    if isinstance(around, Middleware):
        return around.handle
    if not inspect.iscoroutinefunction(around):
        raise RouteError(f"middleware {around!r} is neither a Middleware nor an async function (context, next_handler)")
    return around


def _within(around: Callable[[Any, Handler], Awaitable[Any]], handler: Handler) -> Handler:
    async def call(context: Any) -> Any:
        return await around(context, handler)

    return call
