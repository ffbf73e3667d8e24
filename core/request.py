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
    """Publish ``payload`` on ``topic``, and return the device's answer, decoded by ``codec``.

    On MQTT 5 the message carries a response topic and correlation data. The device answers on that topic, and sends the
    correlation data back (MQTT 5, 4.10).

    - ``topic``: where to.
    - ``payload``: bytes are sent as they are, str in UTF-8, everything else is written by ``codec``.
    - ``timeout``: seconds for everything, from waiting for a connection to the answer. By default 5.
    - ``reply``: the topic or topic filter on which the device answers, for devices that do not answer on the response
      topic. The oldest waiting request with that filter gets the next message on it. By default there is none.
    - ``qos``: 0 or 1. By default 1.
    - ``codec``: the name of a codec, which writes the payload and reads the answer. By default "json".
    - ``properties``: those of MQTT 5 (3.3.2.3). On MQTT 3.1.1 they are left out.

    Raise RequestTimeoutError without an answer in time. Raise BrokerRefusedError where the broker refuses the message. Raise
    ConnectionLostError at a stop. Raise RequestError for an answer that cannot be decoded, and on MQTT 3.1.1 without
    ``reply``.
    """
    publisher = publisher_in_use()
    codecs = codecs_by_name()
    codec_ = codecs.get(codec)
    if codec_ is None:
        raise ValueError(f"codec={codec!r} is not one of {', '.join(codecs)}")
    if reply is not None:
        check_filter(reply)
        if reply.startswith("$share/"):
            raise TopicError(
                f"reply={reply!r} is a shared subscription, whose answers may go to another process. Leave $share/... out"
            )
    if isinstance(payload, str):
        body = payload.encode()
    else:
        body = bytes(payload) if isinstance(payload, bytes | bytearray | memoryview) else codec_.encode(payload)
    publication = Publication(topic, body, qos, properties=properties)
    answer = await publisher.ask(publication, timeout=timeout, reply=reply)
    try:
        return codec_.decode(answer.body)
    except PayloadError as error:
        # Not a PayloadError: what a device answers is not the fault of the message whose handler asked it.
        raise RequestError(f"the answer from {topic!r} on {answer.topic!r} cannot be read: {error}") from None
