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
"""Takes the context and gives the reply, or None."""


class Passed(Enum):
    """What middleware returns in the place of a reply for a message that it did not hand on, and that is done with that."""

    DUPLICATE = "the message was handled before"
    DROPPED = "the message is dropped on purpose"


class Middleware:
    """The parent of your middleware; given to a router, a group or a route, the outermost first.

    ``handle`` runs instead of the handler: it may look at the context, change it, put values into ``context["state"]``,
    call ``next_handler`` or not, and change what comes back or is raised.
    """

    async def handle(self, context: Context[Any], next_handler: Handler) -> Any:
        """Handle one message; this one only hands it on. Gives what the handler gives."""
        return await next_handler(context)

    def registered(self, pattern: Pattern) -> None:
        """Look at the pattern of each route that this is given to. Raises RouteError where it cannot stand there."""
        return


MiddlewareLike = Middleware | type[Middleware] | Callable[[Any, Handler], Awaitable[Any]]
"""A Middleware, its class where that takes no arguments, or an async function of context and next handler."""


def fold(handler: Handler, middleware: Sequence[MiddlewareLike]) -> Handler:
    """Give one callable that runs ``handler`` within ``middleware``, the first outermost. Raises RouteError."""
    for around in reversed(middleware):
        handler = _within(_callable(around), handler)
    return handler


def _callable(around: MiddlewareLike) -> Callable[[Any, Handler], Awaitable[Any]]:
    if isinstance(around, type) and issubclass(around, Middleware):
        try:
            around = around()
        except TypeError as error:
            raise RouteError(f"middleware {around} cannot be made without arguments ({error}); give an instance") from error
    if isinstance(around, Middleware):
        return around.handle
    if not inspect.iscoroutinefunction(around):
        raise RouteError(f"middleware {around!r} is neither a Middleware nor an async function (context, next_handler)")
    return around


def _within(around: Callable[[Any, Handler], Awaitable[Any]], handler: Handler) -> Handler:
    async def call(context: Any) -> Any:
        return await around(context, handler)

    return call
