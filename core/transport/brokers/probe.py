"""A question to an address: whether an MQTT broker answers there, and whether it speaks a version."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from enum import Enum

log = logging.getLogger("routemq.transport")

MAX_ANSWER = 15.0
"""Seconds that whoever listens has to answer CONNECT. A busy machine may take some of them."""
TELL_AFTER = 2.0
"""Seconds of waiting after which the log tells of it."""


class Answer(Enum):
    """What came back for a CONNECT, in words that can follow "the port is taken by"."""

    NOBODY = "nothing that listens"
    BROKER = "an MQTT broker that speaks this version"
    OTHER_VERSION = "an MQTT broker that refused this version"
    HUNG_UP = "something that closed the connection instead of answering CONNECT"
    SILENCE = "something that does not answer CONNECT"
    NOT_MQTT = "something that does not speak MQTT"


async def probe(host: str, port: int, version: str) -> Answer:
    """Send a CONNECT of MQTT ``version`` ("5" or "3.1.1") to ``host``:``port``, and return what came back.

    Where nobody listens, the connection is refused at once. Whoever accepts it may be slow, and is waited for. The client
    identifier is thrown away with its clean session. A broker that wants a password counts as one that speaks the version.
    """
    told = "whoever listens on %s:%d has not answered CONNECT for %.0f s. Waiting for the answer, %.0f s in all at the most"
    telling = asyncio.get_running_loop().call_later(TELL_AFTER, log.warning, told, host, port, TELL_AFTER, MAX_ANSWER)
    try:
        async with asyncio.timeout(MAX_ANSWER):
            return await _ask(host, port, version)
    except TimeoutError:
        return Answer.SILENCE
    finally:
        telling.cancel()


async def _ask(host: str, port: int, version: str) -> Answer:
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return Answer.NOBODY
    try:
        writer.write(_connect(version))
        header = await reader.readexactly(2)
        if header[0] != 0x20:
            return Answer.NOT_MQTT
        # CONNACK: flags, then the reason code (MQTT 5, 3.2.2).
        rest = await reader.readexactly(2)
        if rest[0] > 1:
            return Answer.NOT_MQTT
        if rest[1] in {0x01, 0x84}:
            return Answer.OTHER_VERSION
        writer.write(b"\xe0\x00")
    except asyncio.IncompleteReadError as error:
        return Answer.NOT_MQTT if error.partial else Answer.HUNG_UP
    except OSError:
        return Answer.HUNG_UP
    else:
        return Answer.BROKER
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _connect(version: str) -> bytes:
    """Return a CONNECT packet with a clean session and a random client identifier (MQTT 5, 3.1)."""
    client_id = f"probe-{secrets.token_hex(5)}".encode()
    body = b"\x00\x04MQTT" + (b"\x05" if version == "5" else b"\x04") + b"\x02\x00\x0a"
    body += b"\x00" if version == "5" else b""
    body += len(client_id).to_bytes(2, "big") + client_id
    return b"\x10" + len(body).to_bytes(1, "big") + body
