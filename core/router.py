"""Routers: which handler takes the messages of which topics."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

from core.errors import MalformedError, NoRouteError, RouteError, TopicError, one_line
from core.mqtt.topics import Level, check_topic, parse, takes
from core.route import Options, RouteOptions
from core.routing.registered import Route, make_route
from core.routing.subscriptions import subscriptions_of
from core.routing.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType, TracebackType
    from typing import Self, Unpack

    from core.middleware import MiddlewareLike
    from core.transport.connection import Subscription

__all__ = ["Match", "Options", "Route", "RouteOptions", "Router"]

H = TypeVar("H", bound="Callable[..., Any]")
MAX_TOPICS = 10_000
"""Topics whose route is remembered: those of a fleet come again and again."""


class Match(NamedTuple):
    """The route that takes a topic, and the topic's parameters. All messages on the topic share them: copy to change."""

    route: Route
    params: dict[str, Any]


class Router:
    """Routes in order of their registration. Where several take a topic, the first registered wins.

    - ``prefix``: stands before the pattern of each route.
    - ``middleware``: runs around each handler, outside of the route's own middleware.
    - ``defaults``: the options of routes that do not give them (see ``core.route.RouteOptions``).

    A route that can never win, because an earlier one takes all its topics, is refused. The RouteError names both.
    """

    def __init__(self, prefix: str = "", *, middleware: Sequence[MiddlewareLike] = (), **defaults: Unpack[Options]) -> None:
        self._prefix = prefix.strip("/")
        self._middleware = tuple(middleware)
        self._defaults = defaults
        self._root = self
        self._routes: list[Route] = []
        self._by_name: dict[str, Route] = {}
        self._tree = Tree()
        self._find = lru_cache(MAX_TOPICS)(self._tree.find)
        self._frozen = False

    @property
    def routes(self) -> tuple[Route, ...]:
        """All routes, in order of registration."""
        return tuple(self._root._routes)

    # -- registering ---------------------------------------------------------------------------------------------------

    @overload
    def on(
        self, pattern: str, handler: H, *, middleware: Sequence[MiddlewareLike] = (), **options: Unpack[Options]
    ) -> H: ...

    @overload
    def on(
        self, pattern: str, *, middleware: Sequence[MiddlewareLike] = (), **options: Unpack[Options]
    ) -> Callable[[H], H]: ...

    def on(
        self,
        pattern: str,
        handler: H | None = None,
        *,
        middleware: Sequence[MiddlewareLike] = (),
        **options: Unpack[Options],
    ) -> H | Callable[[H], H]:
        """Register ``handler`` for the topics of ``pattern``, and return it. Without it, return a decorator that does so.

        - ``pattern``: a topic pattern such as "devices/<device_id>/data". The router's prefix stands before it.
        - ``handler``: a method of a controller, given through its class, or a function of the context.
        - ``middleware``: runs around this handler, within the router's middleware.
        - ``options``: those of ``core.route.RouteOptions``.

        Raise TopicError for a pattern that MQTT does not allow. Raise RouteError for a route that can never run, and for
        options that contradict each other.
        """
        where = _caller()

        def register(handler: H) -> H:
            self._register(pattern, handler, tuple(middleware), options, where)
            return handler

        return register if handler is None else register(handler)

    def group(self, prefix: str = "", *, middleware: Sequence[MiddlewareLike] = (), **defaults: Unpack[Options]) -> Router:
        """Return a router that registers its routes here, under this router's prefix and ``prefix``.

        It can be used in a ``with`` block. Its ``middleware`` runs within this router's middleware, and its ``defaults``
        override this router's defaults.
        """
        group = Router.__new__(Router)
        group._prefix = "/".join(part for part in (self._prefix, prefix.strip("/")) if part)
        group._middleware = (*self._middleware, *middleware)
        group._defaults = {**self._defaults, **defaults}
        group._root = self._root
        return group

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def include(
        self,
        other: Router,
        prefix: str = "",
        *,
        middleware: Sequence[MiddlewareLike] = (),
        **defaults: Unpack[Options],
    ) -> None:
        """Register all routes that ``other`` has by now, under ``prefix``.

        They keep the prefix, the middleware and the options that ``other`` gave them.
        """
        group = self.group(prefix, middleware=middleware, **defaults)
        for route in other.routes:
            group._register(route.pattern.text, route.handler, route.middleware, route.given, route.defined_at)

    def _register(
        self,
        text: str,
        handler: Callable[..., Any],
        middleware: tuple[MiddlewareLike, ...],
        options: Options,
        where: str,
    ) -> None:
        root = self._root
        if root._frozen:
            raise RouteError(
                f"route {text!r} at {where} cannot be registered, because the application has started. Register it before"
            )
        full = "/".join(part for part in (self._prefix, text) if part) if self._prefix else text
        try:
            pattern = parse(full)
        except TopicError as error:
            raise TopicError(f"{error} (at {where})") from None
        given: Options = {**self._defaults, **options}
        route = make_route(pattern, handler, (*self._middleware, *middleware), given, where)
        earlier = root._tree.cover(pattern)
        if earlier is not None:
            winner = next(known for known in root._routes if known.pattern is earlier)
            raise RouteError(
                f"route {pattern.text!r} at {where} can never run: {winner.pattern.text!r} at {winner.defined_at} takes "
                "all its topics and was registered first. Register this route before that one, or remove it"
            )
        same = root._by_name.get(route.name)
        if same is not None:
            raise RouteError(
                f"route {pattern.text!r} at {where}: the name {route.name!r} is taken by {same.pattern.text!r} at "
                f"{same.defined_at}. Give another one with name="
            )
        root._by_name[route.name] = route
        root._tree.add(pattern)
        root._find.cache_clear()
        root._routes.append(route)

    def freeze(self) -> None:
        """Refuse all routes from now on."""
        self._root._frozen = True

    # -- looking up ----------------------------------------------------------------------------------------------------

    def match(self, topic: str) -> Match:
        """Return the first registered route that takes ``topic``.

        Raise NoRouteError where there is none. It says which route came nearest. Raise MalformedError where no message may
        have such a topic.
        """
        found = self._root._find(topic)
        if found is None:
            raise self._why_none(topic)
        number, params = found
        return Match(self._root._routes[number], params)

    def nearest(self, topic: str) -> Route | None:
        """Return the first route that would take ``topic`` if the converters of its parameters took everything, or None."""
        pattern = self._root._tree.near(topic)
        return next((route for route in self._root._routes if route.pattern is pattern), None)

    def _why_none(self, topic: str) -> NoRouteError | MalformedError:
        try:
            check_topic(topic)
        except TopicError as error:
            return MalformedError(f"the broker should not have sent the message: {one_line(error, name=False)}")
        nearest = self.nearest(topic)
        shown = topic if len(topic) <= 200 else topic[:200] + "..."
        if nearest is None:
            return NoRouteError(f"no route takes the topic {shown!r}")
        refused = [
            f"{level[:60]!r} is no {segment.converter.name} for {segment.name!r}"
            for segment, level in zip(nearest.pattern.segments, topic.split("/"), strict=False)
            if isinstance(segment, Level) and not takes(segment.converter, level)
        ]
        return NoRouteError(f"no route takes the topic {shown!r}: {', '.join(refused)} in {nearest.pattern.text!r}")

    # -- subscribing ---------------------------------------------------------------------------------------------------

    def subscriptions(self) -> list[Subscription]:
        """Return what to subscribe to (see ``core.routing.subscriptions``)."""
        return subscriptions_of(self.routes)


def _caller() -> str:
    """Return the file and the line of the nearest caller outside this module, as "app/routers/devices.py:12".

    The file is relative to the working directory where it lies in it.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    if frame is None:
        return "an unknown place"
    path = Path(frame.f_code.co_filename)
    with suppress(ValueError):
        path = path.relative_to(Path.cwd())
    return f"{path}:{frame.f_lineno}"
