"""One message on its way through the worker."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.errors import MessageError
    from core.message import Message
    from core.router import Route


class Delivery:
    """A message in hand: what it is, which route takes it, how often it ran, and whether it has its end.

    ``refused`` is set for a message that no route takes; such a one has no route. ``message`` is exchanged for the
    redelivered one when the connection was lost meanwhile, so that its acknowledgement goes out on the new connection.
    ``first_at`` is the time of receipt, in seconds since the epoch.
    """

    __slots__ = ("again", "attempt", "error", "first_at", "message", "params", "refused", "route", "settled", "timed_out")

    def __init__(
        self,
        message: Message,
        route: Route | None,
        params: dict[str, Any],
        refused: MessageError | None = None,
    ) -> None:
        self.message = message
        self.route = route
        self.params = params
        self.refused = refused
        self.attempt = 0
        self.again = 0
        self.error: BaseException | None = None
        self.first_at = time()
        self.settled = False
        self.timed_out = False
