"""The errors of a broker that refuses something, or that does not answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.errors import BrokerRefusedError, BrokerUnreachableError, ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.errors import TransportError
    from core.transport.options import ConnectOptions

UNSUPPORTED_VERSION = 0x84
UNSPECIFIED = 0x80


class NoAnswerError(BrokerUnreachableError):
    """The network connection was made, and no CONNACK came. Perhaps the broker does not speak the version."""


class NotSentError(ConnectionLostError):
    """The connection had ended before the publication was sent."""


def refused(reason: str, code: int, options: ConnectOptions) -> BrokerRefusedError:
    """Return the error for a CONNACK with a reason code of 0x80 and above, or with one of MQTT 3.1.1."""
    hint = ""
    if code in {4, 5, 0x86, 0x87}:
        user = f"user {options.username!r}" if options.username else "no user name"
        hint = f" ({user}). Check user and password in MQTT_URL"
    return BrokerRefusedError(f"{options.address} refused the connection: {reason}{hint}", code)


def subscriptions_refused(reasons: Mapping[str, str]) -> BrokerRefusedError:
    """Return the error for topic filters that the broker refused. ``reasons`` has its words for each of them."""
    named = ", ".join(f"{topic_filter} ({reason})" for topic_filter, reason in reasons.items())
    return BrokerRefusedError(f"the broker refused topic filters, and sends no message for them: {named}", UNSPECIFIED)


def silent(options: ConnectOptions, version: str) -> NoAnswerError:
    """Return the error for a broker that did not answer CONNECT."""
    return NoAnswerError(f"{options.address} cannot be reached: no answer to CONNECT (MQTT {version})")


def may_be_the_version(error: TransportError) -> bool:
    """Return whether ``error`` may come from a broker that does not speak MQTT 5.

    It may where the broker said so, and where it did not answer CONNECT.
    """
    if isinstance(error, BrokerRefusedError):
        # Brokers that speak 3.1.1 answer with its code 1, "unacceptable protocol version".
        return error.reason_code in {UNSUPPORTED_VERSION, 1}
    return isinstance(error, NoAnswerError)
