"""Every error that RouteMQ raises itself.

::

    RouteMQError
    |-- SettingsError (and ValueError)
    |-- TopicError
    |-- RouteError
    |-- StartError
    |-- ScaffoldError
    |-- TransportError
    |   |-- BrokerUnreachableError
    |   |-- BrokerRefusedError
    |   |   `-- HungUpError
    |   |-- SessionTakenOverError
    |   |-- ConnectionLostError
    |   `-- RequestTimeoutError (and TimeoutError)
    |-- RequestError
    |-- CounterUnreachableError
    |-- DatabaseError
    |   |-- DatabaseDisabledError
    |   |-- DatabaseUnreachableError
    |   |-- DatabaseTimeoutError
    |   |-- MigrationError
    |   |-- ModelError
    |   `-- RowLeftOutError
    |-- MessageError
    |   |-- NoRouteError
    |   |-- MalformedError
    |   |   `-- PacketTooLargeError
    |   |-- PayloadError
    |   |   `-- SchemaError
    |   `-- Reject
    |-- RetryLater
    |-- NotYet
    |-- BatchError
    |-- ReplyError
    |-- UnsentError
    |-- HandlerTimeoutError
    |-- RouteStandsError
    |-- DeadLettersFullError
    `-- ReplayStoppedError

The message of an error says what was wrong, with which value, and what to do about it, in one line. At the start it is all
that a person sees of the failure. Later it stands in the log beside the topic and the route.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class RouteMQError(Exception):
    """The parent of all errors that RouteMQ raises itself."""


# -- at the start: these stop it ---------------------------------------------------------------------------------------


class SettingsError(RouteMQError, ValueError):
    """A setting has a value that it cannot have."""


class TopicError(RouteMQError):
    """A topic, topic filter or topic pattern breaks a rule of MQTT (MQTT 5, 4.7) or of RouteMQ."""


class RouteError(RouteMQError):
    """A route, or what belongs to one, cannot be registered: it can never run, or its parts contradict each other."""


class StartError(RouteMQError):
    """The application cannot start, or a command cannot run, as things are set up."""


class ScaffoldError(RouteMQError):
    """The command ``make`` cannot write a file: the name cannot be used, or the file is there already."""


# -- the broker, devices and counters ----------------------------------------------------------------------------------


class TransportError(RouteMQError):
    """The connection to the broker could not be made, or it ended."""


class BrokerUnreachableError(TransportError):
    """Nothing that speaks MQTT answers at the address: unknown host, refused connection, no CONNACK in time.

    Also a run that was cut off at its deadline while it waited for the broker, which is not its fault.
    """


class BrokerRefusedError(TransportError):
    """The broker answered CONNECT, SUBSCRIBE or PUBLISH with a reason code of 0x80 or above (MQTT 5, 2.4).

    ``reason_code`` is that code.
    """

    def __init__(self, message: str, reason_code: int) -> None:
        super().__init__(message)
        self.reason_code = reason_code


class HungUpError(BrokerRefusedError):
    """The broker closes the connection whenever a certain message is published."""


class SessionTakenOverError(TransportError):
    """Another client connected with the same client identifier, and the broker gave the session to it."""


class ConnectionLostError(TransportError):
    """The connection to the broker ended while something was under way on it."""


class RequestTimeoutError(TransportError, TimeoutError):
    """A device did not answer a request in time."""


class RequestError(RouteMQError):
    """A request or a publication cannot be sent as it was asked for, or the answer of a device cannot be decoded."""


class CounterUnreachableError(RouteMQError):
    """The Redis server that counts for rate limits did not answer, or could not count."""


# -- the database ------------------------------------------------------------------------------------------------------


class DatabaseError(RouteMQError):
    """The parent of RouteMQ's own database errors. SQLAlchemy's errors are raised as they are."""


class DatabaseDisabledError(DatabaseError):
    """A call needs a database, and none is configured."""


class DatabaseUnreachableError(DatabaseError):
    """The database server did not answer when a connection to it was to be made."""


class DatabaseTimeoutError(DatabaseError):
    """A run was cut off at its deadline while it waited for the database, which is not its fault."""


class MigrationError(DatabaseError):
    """The tables in the database are not those that the application expects, or a migration cannot be made or run."""


class ModelError(DatabaseError):
    """A call on ``Model`` cannot be right: an unknown column, a class that is no model, a key of the wrong shape."""


class RowLeftOutError(DatabaseError):
    """The database stored fewer rows than it was sent, and raised nothing: a trigger left them out."""


# -- one message: these cost that message and no other -----------------------------------------------------------------


class MessageError(RouteMQError):
    """One message is at fault itself, and running it again cannot help."""


class NoRouteError(MessageError):
    """A subscription brought a message whose topic no route takes."""


class MalformedError(MessageError):
    """A message breaks a rule of MQTT that its broker should have enforced."""


class PacketTooLargeError(MalformedError):
    """A message came in a packet so large that only its beginning was kept."""


class PayloadError(MessageError):
    """A codec cannot decode a body, or cannot encode a value."""


class SchemaError(PayloadError):
    """The payload of a message does not match the schema of its route.

    ``report`` has a line for each field: what was there and what was expected. ``str()`` of the error is one line.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("; ".join(lines))
        self.report = "\n".join(lines)


# -- one message: these are raised by handlers and middleware ----------------------------------------------------------


class Reject(MessageError):  # noqa: N818 - it is said by a handler: raise Reject("why")
    """A handler raises it for a message that can never succeed. The message becomes a dead letter at once."""


class RetryLater(RouteMQError):  # noqa: N818 - it is said by a handler: raise RetryLater(30)
    """A handler raises it to have the message run again in ``seconds``. The run counts as one of the route's attempts."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the handler asked for the message again in {seconds:g} s")
        self.seconds = seconds


class NotYet(RouteMQError):  # noqa: N818 - it is said by middleware: raise NotYet(0.5)
    """Middleware raises it for a message whose turn has not come. It runs again in ``seconds``, which is no attempt."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the message's turn comes in {seconds:g} s")
        self.seconds = seconds


class BatchError(RouteMQError):
    """The handler of a route with ``batch`` raises it to blame single messages.

    ``errors`` has the error of each blamed message by its place in the list, counted from 0. A blamed message runs alone
    from then on, by its route's retry policy. The others count as done. They run again where what the handler
    wrote was undone.

    ``undone`` says whether it left a transaction or a session of ``Model``, which was rolled back by that.
    """

    def __init__(self, errors: Mapping[int, Exception]) -> None:
        super().__init__(f"{len(errors)} messages of the batch failed")
        self.errors = dict(errors)
        self.undone = False


# -- what else can come of runs ----------------------------------------------------------------------------------------


class ReplyError(RouteMQError):
    """A handler returned something that cannot be the replies of its messages."""


class UnsentError(RouteMQError):
    """The broker does not take a message of the outbox, which becomes a dead letter. ``replay`` publishes it again."""


class HandlerTimeoutError(RouteMQError):
    """A handler did not return within the ``timeout`` of its route."""


class RouteStandsError(RouteMQError):
    """A route takes no messages, because all of them fail. They wait on disk until one succeeds.

    ``kind`` is that of their errors. It is empty where the database refuses them.
    """

    def __init__(self, reason: str, kind: str = "") -> None:
        super().__init__(reason)
        self.kind = kind


class DeadLettersFullError(RouteMQError):
    """There are as many dead letters as may be kept. None is deleted, and no more can be stored."""


class ReplayStoppedError(RouteMQError):
    """A replay of dead letters stopped because the infrastructure failed. The dead letters that were not run stay."""


# -- how they are shown -------------------------------------------------------------------------------------------------


def one_line(error: BaseException, *, name: bool = True) -> str:
    """Return the class and the message of ``error``, or the message alone, on one line of at most 300 characters."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    return (f"{kind}: {text}" if text and name else text or kind)[:300]


def mask(url: str) -> str:
    """Return ``url`` without its password, whatever else may be wrong with it."""
    scheme, found, rest = url.partition("://")
    if not found:
        scheme, rest = "", url
    credentials, at, host = rest.rpartition("@")
    if not at:
        return url
    user = credentials.partition(":")[0]
    return f"{scheme}{found}{user}:***@{host}" if ":" in credentials else url
