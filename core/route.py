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
    """Return the topic of ``message`` as its ordering key.

    Messages on one topic then run one after the other, and those on different topics run side by side.
    """
    return message.topic


class Options(TypedDict, total=False):
    """The options that ``router.on``, groups and routers take (see RouteOptions)."""

    qos: Literal[0, 1]
    schema: Any
    codec: CodecLike
    delivery: Literal["at_least_once", "at_most_once", "exactly_once"]
    order_by: OrderBy
    retry: Retry | None
    timeout: float | None
    batch: int | None
    dedup: Dedup | None
    atomic: bool
    reply: str | None
    reply_errors: bool
    name: str | None


@dataclass(frozen=True, slots=True)
class RouteOptions:
    """The options of a route. They are decided when the route is registered.

    - ``qos``: the highest QoS at which the broker is to send the messages, 0 or 1. By default 1.
    - ``schema``: a type that pydantic's TypeAdapter takes. The payload is an object of it. By default there is none.
    - ``codec``: how bodies are read and replies are written. By default "json". One of:

      - "json", "text", "raw", "msgpack" or "cbor", also compressed as in "json+zstd";
      - "auto", which goes by the content type of each message;
      - ``protobuf(MessageClass)``;
      - an object with the two methods of ``core.codecs.Codec``.

    - ``delivery``: when a message is acknowledged. By default "at_least_once". One of:

      - "at_least_once": when the handler has returned;
      - "exactly_once": when the handler's writes are committed, together with a record of the message;
      - "at_most_once": on receipt, for data that may be lost.

    - ``order_by``: the ordering key. Messages with the same key run one after the other. It is the name of a parameter, or
      a callable that takes the Message, or None for no order. By default it is the topic.
    - ``retry``: the policy for messages that fail. None, the default, means that of the application's settings.
    - ``timeout``: seconds after which a handler is cut off. None, the default, means those of the application's settings.
    - ``batch``: the handler gets a list of contexts, at most this many, 1 to 10,000. None, the default, means that it gets
      one context.
    - ``dedup``: an application key, for "exactly_once" only (see ``core.records.dedup``). By default there is none.
    - ``atomic``: whether the writes of one run hold together: they are kept if the handler returned, and undone if it
      raised. By default they do. With False, each call of ``Model`` stands by itself.
    - ``reply``: a topic pattern with parameters of the route's. What the handler returns is sent there, unless the message
      names a response topic. By default there is none.
    - ``reply_errors``: whether a message that could not be handled is answered too. By default it is not.
    - ``name``: the route's name in logs and dead letters. By default it is the pattern.
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
    atomic: bool = True
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
