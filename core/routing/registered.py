"""A route as it is run: its handler within its middleware, and what reads and writes its payloads."""

from __future__ import annotations

import asyncio
import difflib
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import FunctionType
from typing import TYPE_CHECKING, Any

from core.codecs.payload import Read, reader, writer
from core.controller import Controller, instance
from core.errors import RouteError, TopicError
from core.middleware import Handler, Middleware, MiddlewareLike, fold
from core.mqtt.message import Message
from core.mqtt.topics import covers, parse
from core.route import Options, RouteInfo, RouteOptions

if TYPE_CHECKING:
    from core.mqtt.topics import Pattern


MAX_BATCH = 10_000
"""Messages in one list."""


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """A registered route, with everything about it that can be decided before its first message.

    - ``info``: the route as its handler sees it. ``name``, ``handler_name``, ``options`` and ``defined_at`` are those of
      ``info``.
    - ``pattern``: the parsed topic pattern.
    - ``handler``, ``middleware``, ``given``: what was registered. A router that includes this route registers it again.
    - ``call``: runs the handler within its middleware.
    - ``read``: returns the payload of a message.
    - ``encode``, ``content_type``: how a reply is encoded, and what it is called.
    - ``reply_topic``: returns the topic of a reply from the parameters of the message. None without ``reply``.
    """

    info: RouteInfo

    name: str
    pattern: Pattern
    handler: Callable[..., Any]
    handler_name: str
    options: RouteOptions
    given: Options
    middleware: tuple[MiddlewareLike, ...]
    call: Handler
    read: Read
    encode: Callable[[Any], bytes]
    content_type: str | None
    reply_topic: Callable[[Mapping[str, Any]], str] | None
    defined_at: str

    def key(self, message: Message, params: dict[str, Any]) -> Hashable:
        """Return the ordering key of ``message``. None means that it waits for no other message."""
        order_by = self.options.order_by
        if order_by is None:
            return None
        if isinstance(order_by, str):
            key: Hashable = params[order_by]
            return key
        key = order_by(message)
        # A key that cannot be hashed raises here, where it costs this message alone.
        hash(key)
        return key


def make_route(
    pattern: Pattern,
    handler: Callable[..., Any],
    middleware: Sequence[MiddlewareLike],
    given: Options,
    defined_at: str,
) -> Route:
    """Return the route of ``handler``, with everything checked and resolved that can be decided now.

    - ``pattern``: the parsed topic pattern, prefixes included.
    - ``handler``: the method or function that was registered.
    - ``middleware``: all of it, the outermost first.
    - ``given``: the options of the route, its groups and its router.
    - ``defined_at``: where it was registered, as "app/routers/devices.py:12".

    Raise RouteError for an option, a handler or middleware that cannot be used.
    """
    where = f"route {pattern.text!r} at {defined_at}"
    known = [field.name for field in fields(RouteOptions)]
    for option in given:
        if option not in known:
            close = difflib.get_close_matches(option, known, 1)
            hint = f". Did you mean {close[0]!r}?" if close else "."
            raise RouteError(f"{where}: there is no option {option!r}{hint} There are {', '.join(known)}")
    options = RouteOptions(**given)
    _check(options, pattern, where)
    if options.batch is not None and middleware:
        raise RouteError(
            f"{where}: middleware runs around one message, but batch={options.batch} gives the handler many. Call what the "
            "middleware does from the handler, or leave one of the two out"
        )
    bound, name = _bind(handler, where)
    try:
        read = reader(options.codec, options.schema)
        encode, content_type = writer(options.codec)
        call = fold(bound, middleware)
        for around in middleware:
            if isinstance(around, Middleware):
                around.registered(pattern)
    except RouteError as error:
        raise RouteError(f"{where}: {error}") from error
    info = RouteInfo(options.name or pattern.text, pattern.text, name, options, defined_at)
    return Route(
        info=info,
        name=info.name,
        pattern=pattern,
        handler=handler,
        handler_name=name,
        options=options,
        given=given,
        middleware=tuple(middleware),
        call=call,
        read=read,
        encode=encode,
        content_type=content_type,
        reply_topic=_reply_topic(options.reply, pattern, where),
        defined_at=defined_at,
    )


def _reply_topic(reply: str | None, pattern: Pattern, where: str) -> Callable[[Mapping[str, Any]], str] | None:
    """Return a function that makes the topic of a reply from the parameters of the message it answers.

    Return None where the route has no ``reply``. Raise RouteError for a ``reply`` that cannot be used.
    """
    if reply is None:
        return None
    try:
        parsed = parse(reply)
    except TopicError as error:
        raise RouteError(f"{where}: reply: {error}") from None
    if any(not isinstance(segment, str) and segment.name is None for segment in parsed.segments):
        raise RouteError(
            f"{where}: reply={reply!r} has a wildcard, but a reply goes to one topic. Write <name> or plain text"
        )
    for name in parsed.names:
        if name not in pattern.names:
            raise RouteError(f"{where}: reply={reply!r} has the parameter {name!r}, which the route's pattern does not have")
    if covers(pattern.topic_filter, parsed.topic_filter):
        raise RouteError(
            f"{where}: reply={reply!r} is a topic of the route itself, which would answer its own replies. Use another topic"
        )
    segments = parsed.segments
    return lambda params: "/".join(
        segment if isinstance(segment, str) else str(params[segment.name or ""]) for segment in segments
    )


def _check(options: RouteOptions, pattern: Pattern, where: str) -> None:
    if options.qos == 2:
        raise RouteError(
            f"{where}: qos=2 would lose messages in a crash, because the client library answers the broker before the "
            "message is stored. Use qos=1, with which the broker sends again what was not acknowledged"
        )
    if options.qos not in {0, 1}:
        raise RouteError(f"{where}: qos={options.qos!r} is neither 0 nor 1")
    if options.delivery not in {"at_least_once", "at_most_once", "exactly_once"}:
        raise RouteError(f"{where}: delivery={options.delivery!r} is not one of at_least_once, at_most_once, exactly_once")
    if options.delivery == "exactly_once" and options.qos == 0:
        raise RouteError(
            f"{where}: delivery='exactly_once' does not work with qos=0, because a broker never sends such a message again. "
            "Use qos=1"
        )
    if options.dedup is not None and (options.delivery != "exactly_once" or options.batch is not None):
        raise RouteError(
            f"{where}: dedup needs delivery='exactly_once', because its key is stored in that transaction, and no batch"
        )
    if options.dedup is not None and not (callable(options.dedup) or (isinstance(options.dedup, str) and options.dedup)):
        raise RouteError(
            f"{where}: dedup={options.dedup!r} is neither a path into the payload nor a function of the context"
        )
    if options.delivery == "exactly_once" and not options.atomic:
        raise RouteError(
            f"{where}: atomic=False does not work with delivery='exactly_once', whose writes are committed together with a "
            "record of the message. Use delivery='at_least_once'"
        )
    if isinstance(options.order_by, str) and options.order_by not in pattern.names:
        has = f"Its parameters are {', '.join(pattern.names)}" if pattern.names else "It has no parameters"
        raise RouteError(f"{where}: order_by={options.order_by!r} is not a parameter of the pattern. {has}")
    if options.batch is not None and not (isinstance(options.batch, int) and 1 <= options.batch <= MAX_BATCH):
        raise RouteError(f"{where}: batch={options.batch!r} is not a number of messages from 1 to {MAX_BATCH:,}")
    if options.timeout is not None and not options.timeout > 0:
        raise RouteError(f"{where}: timeout={options.timeout!r} is not a positive number of seconds")


def _bind(handler: Callable[..., Any], where: str) -> tuple[Handler, str]:
    """Return an async callable that takes the context, and the handler's name for people.

    A plain function runs in a thread. Raise RouteError for a handler that cannot be called with the context alone.
    """
    if isinstance(handler, type):
        raise RouteError(
            f"{where}: {handler.__qualname__} is a class. Give one of its methods, as in {handler.__qualname__}.handle"
        )
    owner = getattr(handler, "__controller__", None)
    bound: Callable[..., Any] = handler
    if isinstance(owner, type) and issubclass(owner, Controller) and isinstance(handler, FunctionType):
        try:
            bound = handler.__get__(instance(owner))
        except RouteError as error:
            raise RouteError(f"{where}: {error}") from error
    if not callable(bound):
        raise RouteError(f"{where}: the handler {handler!r} is not callable")
    name = getattr(handler, "__qualname__", None) or type(handler).__qualname__
    name = name.rpartition("<locals>.")[2]
    try:
        inspect.signature(bound).bind({})
    except TypeError as error:
        raise RouteError(f"{where}: {name} must take one argument, the context ({error})") from None
    if inspect.iscoroutinefunction(bound) or inspect.iscoroutinefunction(getattr(bound, "__call__", None)):  # noqa: B004
        return bound, name

    async def in_a_thread(context: Any) -> Any:
        return await asyncio.to_thread(bound, context)

    return in_a_thread, name
