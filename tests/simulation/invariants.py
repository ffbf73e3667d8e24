"""What the product promises, checked against what the broker, the database and the disk know."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.simulation.application import BREAKER_AFTER, EXACT, PARTLY, POISON, WHOLE, number_of

if TYPE_CHECKING:
    from tests.simulation.process import Disk, Worker
    from tests.simulation.scenario import Device, Scenario
    from tests.simulation.world.broker import Broker, Item
    from tests.simulation.world.database import Server

SLACK = 40
"""Messages that one read of the socket may bring beyond what may be in hand."""


class Promise:
    """The invariants of one run. ``broken`` lists what was broken, as "name: what happened"."""

    def __init__(self, scenario: Scenario, server: Server, disk: Disk) -> None:
        self.broken: list[str] = []
        self._scenario = scenario
        self._server = server
        self._disk = disk
        # What somebody has dropped of the dead letters, by message identifier: topic, properties and body.
        self.dropped: dict[str, tuple[str, Any, bytes]] = {}
        self._acknowledged: Counter[int] = Counter()
        self._by_number = {message.n: message for message in scenario.messages}
        kinds = {fault.kind for fault in scenario.faults}
        self._bug = "bug" in kinds
        self._two_workers = "second_worker" in kinds

    # -- while it runs -------------------------------------------------------------------------------------------------

    def acknowledged(self, item: Item) -> None:
        """Check that what becomes of a message that the broker will not send again is durable."""
        message = self._by_number[item.n]
        self._acknowledged[item.n] += 1
        if self._scenario.numbered and message.route != "once" and not self._is_durable(message):
            self._break("acknowledged too early", f"message {item.n} is acknowledged, and nothing of it is committed")

    def _is_durable(self, message: Device) -> bool:
        n = message.n
        if message.kind == "ill_formed":
            # Its dead letter may lack the number. They are counted at the end.
            return True
        if self._one("SELECT 1 FROM readings WHERE n = ? AND part = ?", n, WHOLE):
            return True
        if message.route == "dedup" and self._one("SELECT 1 FROM routemq_dedup WHERE key = ?", message.key):
            return True
        return n in self._letters() or n in self._waiting()

    def waits(self) -> bool:
        """Return whether messages wait on disk for a route that stands, and may hope to be handled.

        Where a bug was deployed, or as many messages failed in themselves as make a route stand, the first one that waits
        may fail in itself. That cannot be told from the bug until a message of another key is done.
        """
        kinds = [message.kind for message in self._scenario.messages]
        if self._bug or any(
            kinds.count(kind) > BREAKER_AFTER for kind in ("key_error", "null", "orphan", "partial", "slow")
        ):
            return False
        return self._one("SELECT 1 FROM routemq_backlog")

    def turned(self, workers: list[Worker]) -> None:
        """Check what holds between two turns of the event loop."""
        for worker in workers:
            if worker.engine is None or worker.loop.dead:
                continue
            ledger = worker.engine.ledger
            if not ledger.balanced:
                self._break("ledger", f"the ledger of {worker.name} does not add up: {ledger}")
            if ledger.in_hand > self._scenario.receive_maximum + SLACK:
                self._break("memory", f"{ledger.in_hand} messages are in hand, {self._scenario.receive_maximum} are allowed")

    def ended(self, worker: Worker, error: BaseException | None) -> None:
        """Check how a process ended, and what it still holds."""
        if error is not None:
            self._break("crash", f"{worker.name} ended with {type(error).__name__}: {error}")
        if worker.kept_connections:
            self._break("leak", f"{worker.name} ended, and {worker.kept_connections} connections are not back in their pool")
        if worker.engine is not None and worker.engine.ledger.in_hand:
            self._break("memory", f"{worker.name} ended with messages in hand: {worker.engine.ledger}")

    # -- at the end ----------------------------------------------------------------------------------------------------

    def check(self, broker: Broker, unhandled: list[str], client_id: str) -> None:
        """Check everything else, once the run has ended."""
        for what in unhandled:
            self._break("unhandled", what)
        for item in broker.open_items(client_id):
            self._break("waits for ever", f"message {item.n} on {item.topic} was not acknowledged long after the last fault")
        if self.waits():
            self._break("waits for ever", f"messages {sorted(self._waiting())} wait on disk long after the last fault")
        if self._scenario.numbered:
            self._by_numbers(broker)
            self._order()
            self._published(broker)
        else:
            self._by_bodies(broker)

    def _by_numbers(self, broker: Broker) -> None:
        rows = Counter(n for (n,) in self._all("SELECT n FROM readings WHERE part = ?", WHOLE))
        partly = Counter(n for (n,) in self._all("SELECT n FROM readings WHERE part = ?", PARTLY))
        letters = self._letters()
        waiting = self._waiting()
        stored_keys: Counter[str] = Counter()
        acknowledged_keys: set[str] = set()
        for message in self._scenario.messages:
            n, stored, buried = message.n, rows[message.n], letters[message.n]
            if waiting[n] and (stored or buried) and message.route in EXACT and self._once_only:
                self._break("stored and waiting", f"message {n} on {message.topic} has its end, and waits on disk as well")
            if message.route == "dedup":
                stored_keys[message.key] += stored
                if self._acknowledged[n] and message.kind not in POISON and not self._bug and not waiting[n]:
                    acknowledged_keys.add(message.key)
            elif message.route in EXACT and self._once_only and message.kind != "ill_formed":
                if stored > 1:
                    self._break("stored twice", f"message {n} on {message.topic} is stored {stored} times")
                if buried > 1:
                    self._break("buried twice", f"message {n} on {message.topic} is a dead letter {buried} times")
            flipped = self._bug and not (message.route in EXACT and self._once_only)
            if stored and buried and not flipped:
                self._break("stored and buried", f"message {n} on {message.topic} is stored, and a dead letter as well")
            if buried and message.kind not in POISON and not self._bug:
                self._break("good one buried", f"message {n} on {message.topic} ({message.kind}) is a dead letter")
            if partly[n]:
                self._break("partly stored", f"message {n} on {message.topic} failed, and a part of it is stored")
            unique = message.route not in {"dedup", "once"} and message.qos and message.kind != "ill_formed"
            if unique and self._acknowledged[n] and not stored and not buried and not waiting[n]:
                self._break("lost", f"message {n} on {message.topic} is acknowledged, neither stored nor a dead letter")
        ill_formed = sum(
            self._acknowledged[m.n] for m in self._scenario.messages if m.kind == "ill_formed" and not letters[m.n]
        )
        if self._unnumbered_letters() < ill_formed:
            self._break(
                "lost", f"{ill_formed} messages with ill-formed topics are acknowledged, and not all are dead letters"
            )
        for key, stored in stored_keys.items():
            if stored > 1:
                self._break("key stored twice", f"{stored} messages with the application key {key} are stored")
        for key in sorted(acknowledged_keys):
            if not stored_keys[key]:
                self._break("key lost", f"messages with the application key {key} are acknowledged, and none is stored")

    @property
    def _once_only(self) -> bool:
        return self._scenario.habits.gives_identity

    def _by_bodies(self, broker: Broker) -> None:
        rows = Counter(self._all("SELECT topic, value FROM readings WHERE part = ?", WHOLE))
        letters: Counter[tuple[str, bytes]] = Counter()
        letters.update((topic, bytes(body)) for topic, _, body in self._buried())
        letters.update((topic, bytes(body)) for topic, body in self._all("SELECT topic, body FROM routemq_backlog"))
        letters.update((letter.topic, letter.body) for letter in self._disk.letters)
        groups: dict[tuple[str, bytes], list[Device]] = {}
        for message in self._scenario.messages:
            if message.route not in {"dedup", "once"} and message.kind != "ill_formed":
                groups.setdefault((message.topic, message.body), []).append(message)
        values: Counter[tuple[str, str]] = Counter()
        for (topic, body), same in groups.items():
            kind = same[0].kind
            stored = rows[topic, same[0].value] if kind not in POISON else 0
            values[topic, same[0].value] += len(same)
            acknowledged = sum(1 for message in same if self._acknowledged[message.n])
            alone = sum(1 for key in groups if key[0] == topic and groups[key][0].value == same[0].value) == 1
            if alone and acknowledged > stored + letters[topic, body]:
                self._break("lost", f"{acknowledged} messages {body!r} on {topic} are acknowledged, {stored} are stored")
        for (topic, value), messages in values.items():
            if topic.partition("/")[0] in EXACT and self._once_only and rows[topic, value] > messages:
                self._break(
                    "stored twice", f"{messages} messages {value!r} on {topic} are stored {rows[topic, value]} times"
                )

    def _order(self) -> None:
        if self._two_workers:
            return
        first: dict[str, list[int]] = {}
        seen: set[int] = set()
        for topic, n in self._all("SELECT topic, n FROM readings WHERE part = ? ORDER BY id", WHOLE):
            if n not in seen and self._by_number[n].qos:
                seen.add(n)
                first.setdefault(topic, []).append(n)
        published = sorted(self._scenario.messages, key=lambda message: message.at)
        place = {message.n: place for place, message in enumerate(published)}
        for topic, numbers in first.items():
            places = [place[n] for n in numbers]
            if topic.partition("/")[0] != "free" and places != sorted(places):
                self._break("order", f"the messages of {topic} are stored in the order {numbers}")

    def _published(self, broker: Broker) -> None:
        sent = Counter(broker.published)
        sent.update((topic, bytes(body)) for topic, body in self._all("SELECT topic, body FROM routemq_outbox"))
        rows = {n for (n,) in self._all("SELECT n FROM readings WHERE part = ?", WHOLE)}
        for message in self._scenario.messages:
            if message.kind != "publishes":
                continue
            told = sent[f"out/{message.topic}", str(message.n).encode()]
            if told and message.n not in rows and message.route in EXACT:
                self._break("published and not stored", f"message {message.n} is not stored, but what it published is sent")
            if message.n in rows and not told:
                self._break("not published", f"message {message.n} is stored, but what it published is not sent")

    # -- where things are ----------------------------------------------------------------------------------------------

    def _waiting(self) -> Counter[int]:
        return _numbers([properties for (properties,) in self._all("SELECT properties FROM routemq_backlog")])

    def _buried(self) -> list[tuple[str, Any, bytes]]:
        stored = self._all("SELECT message_id, topic, properties, body FROM routemq_dead_letters")
        there = {name: (topic, properties, body) for name, topic, properties, body in stored}
        return list((self.dropped | there).values())

    def _letters(self) -> Counter[int]:
        found = _numbers([properties for _, properties, _ in self._buried()])
        for letter in self._disk.letters:
            n = number_of(letter.properties)
            if n is not None:
                found[n] += 1
        return found

    def _unnumbered_letters(self) -> int:
        kept = [properties and json.loads(properties) for _, properties, _ in self._buried()]
        kept += [letter.properties for letter in self._disk.letters]
        return sum(number_of(properties) is None for properties in kept)

    def _all(self, sql: str, *parameters: Any) -> list[Any]:
        return self._server.reader.execute(sql, parameters).fetchall()

    def _one(self, sql: str, *parameters: Any) -> bool:
        return self._server.reader.execute(sql, parameters).fetchone() is not None

    def _break(self, name: str, what: str) -> None:
        broken = f"{name}: {what}"
        if broken not in self.broken:
            self.broken.append(broken)


def _numbers(stored: list[Any]) -> Counter[int]:
    """Return how often the properties that are ``stored`` carry each number."""
    found: Counter[int] = Counter()
    for properties in stored:
        n = number_of(json.loads(properties) if properties else None)
        if n is not None:
            found[n] += 1
    return found
