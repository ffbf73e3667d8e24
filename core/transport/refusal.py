"""What is said to a person when a broker refuses the connection, or says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.errors import BrokerRefusedError, BrokerUnreachableError

if TYPE_CHECKING:
    from core.errors import TransportError
    from core.transport.options import ConnectOptions

UNSUPPORTED_VERSION = 0x84


class NoAnswerError(BrokerUnreachableError):
    """The network connection stands, or stood, and no CONNACK came: perhaps the version is not spoken."""


def refused(reason: str, code: int, options: ConnectOptions) -> BrokerRefusedError:
    """Give the error for a CONNACK with a reason code of 0x80 and above, or with one of MQTT 3.1.1."""
    hint = ""
    if code in {4, 5, 0x86, 0x87}:
        user = f"user {options.username!r}" if options.username else "no user name"
        hint = f" ({user}; see user and password in MQTT_URL)"
    return BrokerRefusedError(f"{options.address} refused the connection: {reason}{hint}", code)


def silent(options: ConnectOptions, version: str) -> NoAnswerError:
    """Give the error for a broker that did not answer CONNECT."""
    return NoAnswerError(f"{options.address} cannot be reached: no answer to CONNECT (MQTT {version})")


def may_be_the_version(error: TransportError) -> bool:
    """Say whether ``error`` may come from a broker that does not speak MQTT 5: said so, or no answer at all."""
    if isinstance(error, BrokerRefusedError):
        # 3.1.1 brokers answer with their own code 1, "unacceptable protocol version".
        return error.reason_code in {UNSUPPORTED_VERSION, 1}
    return isinstance(error, NoAnswerError)
