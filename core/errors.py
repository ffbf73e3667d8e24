"""Every error that RouteMQ raises itself.

A message says what was wrong, with which value, and what to do about it, in one line: at start it is all that a person
sees of the failure, at run time it stands in the log beside the topic and the route.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class RouteMQError(Exception):
    """The parent of all errors that RouteMQ raises itself."""


# -- at start: these stop it -------------------------------------------------------------------------------------------


class SettingsError(RouteMQError, ValueError):
    """A setting has a value that it cannot have."""


class TopicError(RouteMQError):
    """A topic, topic filter or topic pattern that MQTT (4.7) or RouteMQ does not allow."""


class RouteError(RouteMQError):
    """A route that cannot be registered: shadowed, wrongly built, or with options that contradict each other."""


class StartError(RouteMQError):
    """The application cannot start as it is set up."""


class ScaffoldError(RouteMQError):
    """A file that ``make`` cannot write: its name is none, or there is one already."""


# -- transport ---------------------------------------------------------------------------------------------------------


class TransportError(RouteMQError):
    """The connection to the broker could not be made, or ended."""


class BrokerUnreachableError(TransportError):
    """Nothing that speaks MQTT answers at the address: unknown host, refused connection, no CONNACK in time."""


class BrokerRefusedError(TransportError):
    """The broker answered CONNECT, SUBSCRIBE or PUBLISH with a reason code of 0x80 or above (MQTT 5, 2.4)."""

    def __init__(self, message: str, reason_code: int) -> None:
        super().__init__(message)
        self.reason_code = reason_code


class SessionTakenOverError(TransportError):
    """Another client connected with the same client identifier, and the broker gave it the session."""


class RequestError(RouteMQError):
    """A request to a device, or a publication, that cannot be sent from where it was asked for, or as it was."""


class RequestTimeoutError(TransportError, TimeoutError):
    """A device did not answer a request in time."""


class ConnectionLostError(TransportError):
    """The connection ended while something was under way on it."""


class CounterUnreachableError(RouteMQError):
    """The Redis server that rate limits are counted on did not answer, or did not count."""


# -- one message: these cost that message and no other -----------------------------------------------------------------


class MessageError(RouteMQError):
    """What is wrong with one message itself; running it again cannot help."""


class NoRouteError(MessageError):
    """A message whose topic no route takes, although a subscription brought it."""


class PayloadError(MessageError):
    """A body that the route's codec cannot decode."""


class SchemaError(PayloadError):
    """A payload that the route's schema does not take.

    ``report`` has a line for each field: what was there and what was expected. ``str()`` of it is one line.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("; ".join(lines))
        self.report = "\n".join(lines)


class ReplayStoppedError(RouteMQError):
    """The infrastructure failed while dead letters were run again; those that were not run stay."""


# -- database ----------------------------------------------------------------------------------------------------------


class DatabaseError(RouteMQError):
    """The parent of RouteMQ's own database errors; SQLAlchemy's errors come through as they are."""


class DatabaseDisabledError(DatabaseError):
    """A call that needs a database, while none is configured."""


class DatabaseUnreachableError(DatabaseError):
    """The database server did not answer when a connection to it was to be made."""


class MigrationError(DatabaseError):
    """The database's tables are not those that the application expects, or a migration cannot be made or run."""


class ModelError(DatabaseError):
    """A call on ``Model`` that cannot be right: unknown column, a class that is no model, a key of the wrong shape."""


# -- raised by handlers ------------------------------------------------------------------------------------------------


class Reject(MessageError):  # noqa: N818 - it is said by a handler: raise Reject("why")
    """Raised by a handler that knows a message can never succeed: it becomes a dead letter at once, with this reason."""


class RetryLater(RouteMQError):  # noqa: N818 - it is said by a handler: raise RetryLater(30)
    """Raised by a handler that wants the message again in ``seconds``; it counts as one of the route's attempts."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the handler asked for the message again in {seconds:g} s")
        self.seconds = seconds


class NotYet(RouteMQError):  # noqa: N818 - it is said by middleware: raise NotYet(0.5)
    """Raised by middleware for a message whose turn has not come: it runs again in ``seconds``, which is no attempt."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the message's turn comes in {seconds:g} s")
        self.seconds = seconds


class BatchError(RouteMQError):
    """Raised by the handler of a route with ``batch`` to blame single messages: ``errors`` by their place in the list.

    The others count as done. Each blamed one follows its route's retry policy alone.
    """

    def __init__(self, errors: Mapping[int, Exception]) -> None:
        super().__init__(f"{len(errors)} messages of the batch failed")
        self.errors = dict(errors)


class ReplyError(RouteMQError):
    """What a handler returned cannot be the replies of its messages."""


class HandlerTimeoutError(RouteMQError):
    """A handler that did not return within its route's ``timeout``."""


# -- how they are shown -------------------------------------------------------------------------------------------------


def one_line(error: BaseException, *, name: bool = True) -> str:
    """Give the error's class and message, or the message alone, on one line of at most 300 characters."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    return (f"{kind}: {text}" if text and name else text or kind)[:300]


def mask(url: str) -> str:
    """Give ``url`` without its password, whatever else may be wrong with it."""
    scheme, found, rest = url.partition("://")
    if not found:
        scheme, rest = "", url
    credentials, at, host = rest.rpartition("@")
    if not at:
        return url
    user = credentials.partition(":")[0]
    return f"{scheme}{found}{user}:***@{host}" if ":" in credentials else url
