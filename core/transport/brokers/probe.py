"""Asks what answers at an address: an MQTT broker, and of which version, or something else."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from enum import Enum


class Answer(Enum):
    """What came back for a CONNECT."""

    NOBODY = "nothing listens there"
    BROKER = "an MQTT broker that speaks this version"
    OTHER_VERSION = "an MQTT broker that refused this version"
    SILENCE = "something that accepted the connection and did not answer CONNECT"
    NOT_MQTT = "something that does not speak MQTT"


async def probe(host: str, port: int, version: str, timeout: float = 2.0) -> Answer:
    """Connect to ``host``:``port``, send a CONNECT of MQTT ``version`` ("5" or "3.1.1"), and say what came back.

    The client identifier is thrown away with its clean session; a broker that wants a password counts as one.
    """
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return Answer.NOBODY
    try:
        async with asyncio.timeout(timeout):
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
            return Answer.BROKER
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        read = error.partial if isinstance(error, asyncio.IncompleteReadError) else b""
        return Answer.NOT_MQTT if read else Answer.SILENCE
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _connect(version: str) -> bytes:
    """Give a CONNECT packet with a clean session and a random client identifier (MQTT 5, 3.1)."""
    client_id = f"probe-{secrets.token_hex(5)}".encode()
    body = b"\x00\x04MQTT" + (b"\x05" if version == "5" else b"\x04") + b"\x02\x00\x0a"
    body += b"\x00" if version == "5" else b""
    body += len(client_id).to_bytes(2, "big") + client_id
    return b"\x10" + len(body).to_bytes(1, "big") + body
