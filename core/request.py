"""Requests to devices: a message, and the device's answer to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.codecs import codecs_by_name
from core.errors import PayloadError, RequestError, TopicError
from core.mqtt.publication import Publication
from core.mqtt.topics import check_filter
from core.publisher import publisher_in_use

if TYPE_CHECKING:
    from core.mqtt.message import Properties


async def request(
    topic: str,
    payload: Any,
    *,
    timeout: float = 5.0,
    reply: str | None = None,
    qos: int = 1,
    codec: str = "json",
    properties: Properties | None = None,
) -> Any:
    """Publish ``payload`` on ``topic`` and give the device's answer, decoded by ``codec``.

    The payload is written by ``codec`` too; bytes go as they are, and str in UTF-8. ``timeout`` is in seconds and holds for
    all of it. By MQTT 5 the message carries a response topic and correlation data (4.10), which the device sends back with
    its answer. ``reply`` is the topic, or topic filter, on which a device answers that does not: the oldest waiting request
    of that filter gets the next message on it.

    Raises RequestTimeoutError, BrokerRefusedError, ConnectionLostError at a stop, and RequestError for an answer that cannot
    be decoded and by MQTT 3.1.1 without ``reply``.
    """
    publisher = publisher_in_use()
    codecs = codecs_by_name()
    codec_ = codecs.get(codec)
    if codec_ is None:
        raise ValueError(f"codec={codec!r} is none of {', '.join(codecs)}")
    if reply is not None:
        check_filter(reply)
        if reply.startswith("$share/"):
            raise TopicError(f"reply={reply!r}: the answers of a shared subscription may go to another process")
    if isinstance(payload, str):
        body = payload.encode()
    else:
        body = bytes(payload) if isinstance(payload, bytes | bytearray | memoryview) else codec_.encode(payload)
    publication = Publication(topic, body, qos, properties=properties)
    answer = await publisher.ask(publication, timeout=timeout, reply=reply)
    try:
        return codec_.decode(answer.body)
    except PayloadError as error:
        # No PayloadError: what a device answers is not the fault of the message that its handler was at.
        raise RequestError(f"the answer of {topic!r} on {answer.topic!r}: {error}") from None
