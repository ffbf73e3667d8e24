"""One route: a topic pattern, a handler, and the options that hold for its messages."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from core.codecs import CodecLike
from core.mqtt.message import Message

if TYPE_CHECKING:
    from core.retry import Retry


Dedup = str | Callable[[Any], Any]
"""A path into the payload, such as "id" or "meta.id", or a function that takes the context."""

OrderBy = str | Callable[[Message], Hashable] | None


def by_topic(message: Message) -> Hashable:
    """Give the ordering key of ``message``: messages on one topic run one after the other, different topics side by side."""
    return message.topic


class Options(TypedDict, total=False):
    """What ``router.on`` and groups take; see RouteOptions."""

    qos: Literal[0, 1]
    schema: Any
    codec: CodecLike
    delivery: Literal["at_least_once", "at_most_once", "exactly_once"]
    order_by: OrderBy
    retry: Retry | None
    timeout: float | None
    batch: int | None
    dedup: Dedup | None
    reply: str | None
    reply_errors: bool
    name: str | None


@dataclass(frozen=True, slots=True)
class RouteOptions:
    """The options of a route, decided when it is registered.

    ``qos``: the highest QoS its messages are wanted at. ``codec``: "json", "text", "raw", "msgpack" or "cbor", as they
    are or as in "json+zstd"; "auto" (by the message's content type), ``protobuf(MessageClass)``, or an object with the
    two methods of ``core.codecs.Codec``. ``delivery``: "at_least_once" (acknowledged when the handler has returned),
    "exactly_once" (its writes are committed with a record of the message, once) or
    "at_most_once" (acknowledged on receipt, for data that may be lost). ``order_by``: the ordering key, a
    parameter's name or a callable that takes the Message; None for no order; by default the topic. ``retry`` and
    ``timeout`` (seconds): None for the application's settings. ``batch``: the handler gets a list of contexts, at
    most this many. ``dedup``: an application key, see ``core.records.dedup``. ``schema``: a type that pydantic's
    TypeAdapter takes; the payload is an object of it. ``reply``: a topic pattern with parameters of the route's, to which
    what the handler returns is sent, unless the message names a response topic; ``reply_errors``: whether a message that
    could not be handled is answered too. ``name``: in logs and dead letters, by default the pattern.
    """

    qos: int = 1
    schema: Any = None
    codec: CodecLike = "json"
    delivery: str = "at_least_once"
    order_by: OrderBy = by_topic
    retry: Retry | None = None
    timeout: float | None = None
    batch: int | None = None
    dedup: Dedup | None = None
    reply: str | None = None
    reply_errors: bool = False
    name: str | None = None


@dataclass(frozen=True, slots=True)
class RouteInfo:
    """A route as its handler sees it, in ``context["route"]``.

    - ``name``: its name in logs and dead letters.
    - ``pattern``: its topic pattern, as text.
    - ``handler``: the name of its handler.
    - ``options``: its options.
    - ``defined_at``: where it was registered, as "app/routers/devices.py:12".
    """

    name: str
    pattern: str
    handler: str
    options: RouteOptions
    defined_at: str
