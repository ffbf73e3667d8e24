"""A circuit breaker for each route: a route whose messages all fail stands, while the others go on."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING

from core.database.fault import is_patient, kind_of
from core.errors import MessageError, RouteStandsError, one_line
from core.handling.delivery import Refusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.handling.delivery import Delivery
    from core.handling.failures.outage import Outage

log = logging.getLogger("routemq.delivery")

REFUSED = 3
"""Runs in a row that the database refuses, with none that is done between them, after which a route stands."""
OUTLIVED = 5
"""How often a message fails while others of its route are done, after which the fault counts as the message's own."""
PATIENCE = 60.0
"""Seconds that a message waits for somebody else's lock, however many others of its route are done meanwhile."""


class Circuit:
    """What is known of one route since its first failure.

    - ``name``: the route's name.
    - ``done``: how many of its messages were done.
    - ``failed``: how many failed for good since, all with errors of one ``kind``.
    - ``refused``: how many runs the database refused since.
    - ``storing``: the identifiers of messages that are on their way to the disk, where they wait.
    - ``stored``: how many have arrived there.
    - ``since``: when it began to stand. None while it does not.
    - ``why``: why it stands.
    """

    __slots__ = ("done", "failed", "kind", "name", "refused", "since", "stored", "storing", "why")

    def __init__(self, name: str) -> None:
        self.name = name
        self.done = 0
        self.failed = 0
        self.kind = ""
        self.refused = 0
        self.storing: set[str] = set()
        self.stored = 0
        self.since: float | None = None
        self.why = RouteStandsError("")


class Circuits:
    """The circuits of all routes. A route that has never failed has none, and costs nothing.

    A route stands in three cases:

    - its last ``after`` messages have failed for good, with errors of one kind, and none was done;
    - the database refuses its runs, while it answers others: a table is missing or locked;
    - its dead letters cannot be stored, because there are too many.

    Where nothing can be stored on disk, no route stands.

    - ``outage``: that of the infrastructure, for which all routes wait.
    - ``after``: a number of messages. 0 leaves out the first case.
    - ``stores``: whether messages can wait on disk.
    - ``standing``: the circuits of routes that stand, by their names.
    """

    def __init__(self, outage: Outage, after: int, *, stores: bool) -> None:
        self.outage = outage
        self.after = after
        self.stores = stores
        self.standing: dict[str, Circuit] = {}
        self._circuits: dict[str, Circuit] = {}
        self._opened: list[Callable[[Circuit], None]] = []

    def when_opened(self, call: Callable[[Circuit], None]) -> None:
        """Have ``call`` told of each route that begins to stand."""
        self._opened.append(call)

    def of(self, delivery: Delivery) -> Circuit | None:
        """Return the circuit of a route that stands and takes ``delivery``. Return None where it does not stand."""
        return self.standing.get(name_of(delivery))

    def done(self, delivery: Delivery) -> None:
        """Record that ``delivery`` is done."""
        if self._circuits and (circuit := self._circuits.get(name_of(delivery))) is not None:
            circuit.done += 1
            circuit.failed = circuit.refused = 0

    def failed(self, delivery: Delivery, error: BaseException) -> bool:
        """Record that ``delivery`` has failed for good with ``error``. Return whether its route stands now.

        What a handler or a codec says of the message itself does not count: only its sender can mend that.
        """
        if isinstance(error, MessageError) or not self.after or not self.stores:
            return False
        circuit = self._circuit(name_of(delivery))
        kind = kind_of(error)
        circuit.failed = circuit.failed + 1 if circuit.kind == kind else 1
        circuit.kind = kind
        if circuit.failed <= self.after:
            return False
        self.stand(circuit.name, f"its last {self.after} messages have failed with {one_line(error)}", kind)
        return True

    def found_no_room(self, delivery: Delivery, error: BaseException) -> None:
        """Record that ``delivery``, which failed with ``error``, is no dead letter yet, so that it fails once more later."""
        circuit = self._circuits.get(name_of(delivery))
        if circuit is not None and circuit.failed and circuit.kind == kind_of(error):
            circuit.failed -= 1

    def is_why(self, circuit: Circuit, error: BaseException) -> bool:
        """Return whether the route of ``circuit`` stands because of failures such as ``error``."""
        return bool(self.after) and circuit.failed > self.after and circuit.kind == kind_of(error)

    def refused(self, delivery: Delivery, error: BaseException) -> float | None:
        """Record that the database refused the run of ``delivery`` with ``error``, while it answers others.

        Return the seconds after which it is to run again. Return None where the fault is the message's own, because others
        of its route were done between its failures again and again.
        """
        circuit = self._circuit(name_of(delivery))
        refusals = delivery.refusals
        if refusals is None:
            refusals = delivery.refusals = Refusals()
        if refusals.done is not None and circuit.done > refusals.done:
            refusals.outlived += 1
        refusals.done = circuit.done
        patient = is_patient(error) and monotonic() - refusals.since < PATIENCE
        if refusals.outlived >= OUTLIVED and not patient:
            return None
        circuit.refused += 1
        if circuit.refused >= REFUSED and circuit.since is None:
            self.stand(circuit.name, f"the database refuses its messages: {one_line(error)}")
        return refusals.pauses.next()

    def stand(self, name: str, why: str, kind: str = "") -> None:
        """Have the route named ``name`` stand, because of ``why``: failures of ``kind``, where there is one."""
        circuit = self._circuit(name)
        if circuit.since is not None or not self.stores:
            return
        if kind:
            circuit.kind, circuit.failed = kind, self.after + 1
        circuit.since = monotonic()
        circuit.why = RouteStandsError(f"route {name} stands, because {why}", circuit.kind if kind else "")
        self.standing[name] = circuit
        log.error("%s. Its messages wait on disk, in order, and one at a time is tried; all other routes go on", circuit.why)
        for call in self._opened:
            call(circuit)

    def close(self, circuit: Circuit, stored: int) -> bool:
        """Have the route of ``circuit`` take messages again.

        Return False where more than ``stored`` messages have arrived on the disk by now, or some are on their way.
        """
        if circuit.storing or circuit.stored != stored:
            return False
        del self.standing[circuit.name]
        circuit.since = None
        circuit.failed = circuit.refused = 0
        return True

    def _circuit(self, name: str) -> Circuit:
        circuit = self._circuits.get(name)
        if circuit is None:
            circuit = self._circuits[name] = Circuit(name)
        return circuit


def name_of(delivery: Delivery) -> str:
    """Return the name of the route that takes ``delivery``. Return an empty one where none does."""
    return delivery.route.name if delivery.route is not None else ""
