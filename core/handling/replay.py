"""Runs dead letters once more, through the application itself, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from core.database.fault import fault_of
from core.errors import MalformedError, PacketTooLargeError, ReplayStoppedError, UnsentError, one_line
from core.handling.delivery import Delivery, routed
from core.handling.failures.outcome import WAITED_OUT
from core.mqtt.message import Message
from core.mqtt.publication import Publication
from core.records.properties import properties_from_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from core.handling.runner import Runner
    from core.records.dead_letters import DeadLetter, DeadLetterStore, Stored
    from core.router import Router

MAX_READ = 100
"""Dead letters that are read at once."""
_FAULTS = {kind.__name__: kind for kind in (MalformedError, PacketTooLargeError)}
MAX_TOLD = 100
"""Failures of which number and reason are kept."""


@dataclass(slots=True)
class Tally:
    """What came of a replay.

    - ``done``: how many dead letters were handled.
    - ``failures``: how many failed again.
    - ``failed``: the number and the reason of each of the first hundred that failed again.
    """

    done: int = 0
    failures: int = 0
    failed: list[tuple[int, str]] = field(default_factory=list)


async def every(dead_letters: DeadLetterStore, route: str | None = None) -> AsyncIterator[Stored]:
    """Yield all dead letters, or those of the route named ``route``, the oldest first. Leave out those added meanwhile."""
    last = await dead_letters.last()
    after = 0
    while found := await dead_letters.read(after=after, most=MAX_READ, route=route):
        for stored in found:
            if stored.id > last:
                return
            yield stored
        after = found[-1].id


async def run_again(
    router: Router,
    runner: Runner,
    dead_letters: DeadLetterStore,
    chosen: AsyncIterator[Stored],
    progress: Callable[[int], None],
) -> Tally:
    """Run each of ``chosen`` once. Remove a dead letter when its handler has returned, and only then.

    - ``router``: finds the route of each dead letter.
    - ``runner``: runs the handlers.
    - ``dead_letters``: the place that the dead letters are removed from.
    - ``chosen``: the dead letters to run.
    - ``progress``: is called with 1 after each of them.

    A process that dies between the return and the removal leaves the dead letter there. Like any message, it may run twice.

    Raise ReplayStoppedError at the first fault of the infrastructure. What was not run by then stays.
    """
    tally = Tally()
    async for stored in chosen:
        error = await _again(router, runner, stored.letter)
        if error is None:
            await dead_letters.remove([stored.id])
            tally.done += 1
        elif fault_of(error) in WAITED_OUT:
            raise ReplayStoppedError(
                f"stopped after {tally.done:,} at dead letter {stored.id}, because the infrastructure failed: "
                f"{one_line(error)}"
            ) from error
        else:
            tally.failures += 1
            if len(tally.failed) < MAX_TOLD:
                tally.failed.append((stored.id, one_line(error)))
        progress(1)
    return tally


async def _again(router: Router, runner: Runner, letter: DeadLetter) -> BaseException | None:
    """Run the message of ``letter``, or publish it where it was to be published. Return what went wrong, or None."""
    if letter.error == UnsentError.__name__:
        properties = properties_from_json(letter.properties)
        return await runner.publish(Publication(letter.topic, letter.body, letter.qos, letter.retain, properties))
    if letter.error == MalformedError.__name__:
        # Whoever asks for it has seen what is wrong. Of a packet that was too large, the rest is missing.
        letter = replace(letter, error="")
    return await runner.run(delivery_of(router, letter))


def delivery_of(router: Router, letter: DeadLetter) -> Delivery:
    """Return the message of ``letter``, with the route that takes it now."""
    properties = properties_from_json(letter.properties)
    message = Message(letter.topic, letter.body, letter.qos, 0, 0, properties, retain=letter.retain)
    if letter.error in _FAULTS:
        message.fault = _FAULTS[letter.error](letter.reason.partition(": ")[2])
    delivery = routed(router, message)
    delivery.first_at = letter.first_at.timestamp()
    delivery.attempt = letter.attempts + 1
    return delivery
