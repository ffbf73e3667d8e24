"""What happens in one run, made of one number."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from random import Random

from tests.simulation.application import LISTS, POISON, ROUTES
from tests.simulation.world.broker import Habits

START = 5.0
"""Seconds until the first message, so that there is a session that it waits in."""


@dataclass(frozen=True, slots=True)
class Device:
    """One message of a device.

    - ``n``: its number.
    - ``at``: when it is published.
    - ``topic``: the route and the key.
    - ``kind``: what its handler does.
    - ``value``: what is stored.
    - ``ms``: milliseconds that its handler takes.
    - ``key``: its application key, for routes with ``dedup``.
    - ``qos``: 0 or 1.
    """

    n: int
    at: float
    topic: str
    kind: str = "good"
    value: str = "open"
    ms: int = 0
    key: str = "k"
    qos: int = 1

    @property
    def route(self) -> str:
        """The name of its route."""
        return self.topic.partition("/")[0]

    @property
    def body(self) -> bytes:
        """What it publishes. Equal messages have equal bodies."""
        if self.kind == "unreadable":
            return b"{"
        told = {"kind": self.kind, "value": self.value, "ms": self.ms}
        return json.dumps(told | ({"key": self.key} if self.route == "dedup" else {})).encode()


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: what, when, for how long, how often, and in which way."""

    kind: str
    at: float
    seconds: float = 0.0
    count: int = 1
    how: str = ""

    def __str__(self) -> str:
        words = [self.kind.replace("_", " ")]
        words += [f"({self.how})"] if self.how else []
        words += [f"for {self.seconds:g} s"] if self.seconds else []
        words += [f"{self.count} times"] if self.count > 1 else []
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Scenario:
    """All that happens in one run. ``numbered`` says whether messages carry a number that the product does not look at."""

    seed: int
    routes: tuple[str, ...]
    messages: tuple[Device, ...]
    faults: tuple[Fault, ...]
    habits: Habits = field(default_factory=Habits)
    receive_maximum: int = 1000
    dead_letter_max: int = 100_000
    latency: float = 0.005
    splits: bool = False
    numbered: bool = True

    @property
    def faults_end(self) -> float:
        """When the last fault has ended."""
        ends = [fault.at + fault.seconds for fault in self.faults]
        return max([START, *ends, *(message.at for message in self.messages)])


NETWORK = frozenset({"cut", "cut_up", "cut_down", "silence"})
BROKER = frozenset({"broker_restart", "broker_loses_sessions"})
DATABASE = frozenset({"db_down", "db_hangs", "db_standby", "db_lock", "db_code", "db_commit_lost"})
PROCESS = frozenset({"death", "stop"})
FAULTS = NETWORK | BROKER | DATABASE | PROCESS | {"second_worker", "schema", "bug"}
"""All kinds of faults."""
HABITS: dict[str, Habits] = {
    "mosquitto": Habits(),
    "lowest": Habits(numbers="lowest"),
    "rabbitmq": Habits(numbers="anew", bounded=False),
    "aedes": Habits(dup=False, bounded=False),
    "silent": Habits(tells=False),
}
"""The brokers by name."""
CODES = ("40001", "40P01", "55P03", "57014", "53100", "25P03", "57P01", "53300", "08006")


@dataclass(frozen=True, slots=True)
class Allowed:
    """What scenarios are made of: kinds of faults and of poison, brokers and routes by their names, and what else varies.

    - ``circles``: how many packet identifiers brokers have.
    - ``few_letters``: whether some runs keep few dead letters.
    - ``good``: the kinds of good messages, each as often as it comes.
    - ``seconds``: how long faults last.
    """

    faults: frozenset[str] = FAULTS
    poison: frozenset[str] = POISON
    brokers: tuple[str, ...] = tuple(HABITS)
    routes: tuple[str, ...] = tuple(ROUTES)
    circles: tuple[int, ...] = (8, 64)
    few_letters: bool = True
    good: tuple[str, ...] = (*("good",) * 8, "flaky", "publishes")
    seconds: tuple[float, ...] = (0.01, 0.2, 1.0, 5.0, 25.0)


ALL = Allowed()
IDENTITY = Allowed(
    faults=frozenset({"cut_down", "cut_up", "death", "stop", "broker_loses_sessions"}),
    poison=frozenset(),
    brokers=("mosquitto",),
    routes=("exact", "plain"),
    circles=(8,),
    few_letters=False,
)
"""What tells a redelivery from a new message, and little else: more of it in each run."""
NUMBERS = replace(IDENTITY, brokers=("rabbitmq", "lowest", "aedes"))
"""The same on brokers that give no identity."""
PUBLISHING = Allowed(
    faults=frozenset({"broker_restart", "cut", "cut_up", "silence", "death"}),
    poison=frozenset(),
    brokers=("mosquitto", "rabbitmq", "aedes"),
    routes=("plain", "list", "exact"),
    circles=(64,),
    few_letters=False,
    good=("good", "publishes", "publishes"),
    seconds=(0.2, 5.0, 25.0, 60.0),
)
"""Handlers that publish to a broker that is away again and again."""
DATABASE_ONLY = Allowed(faults=DATABASE | {"schema"}, brokers=("mosquitto",), circles=(64,))
"""A database that fails, and a broker that does not."""
OF_LISTS = replace(ALL, routes=tuple(LISTS))
"""Lists in all ways."""
SETS = {
    "lists": OF_LISTS,
    "all": ALL,
    "identity": IDENTITY,
    "numbers": NUMBERS,
    "publishing": PUBLISHING,
    "database": DATABASE_ONLY,
}
"""What runs can be made of, by name."""


def scenario_of(seed: int, allowed: Allowed = ALL) -> Scenario:
    """Return the scenario of ``seed``, of what is ``allowed``."""
    random = Random(seed)
    routes = tuple(name for name in allowed.routes if random.random() < 0.4) or (random.choice(allowed.routes),)
    broker = random.choice(allowed.brokers) if random.random() < 0.6 else allowed.brokers[0]
    span = random.choice((0.05, 0.5, 5.0, 20.0))
    messages = _messages(random, allowed, routes, span)
    most = random.choice((0, 1, 1, 2, 2, 3, 4, 6))
    faults = tuple(sorted((_fault(random, allowed, messages, span) for _ in range(most)), key=lambda fault: fault.at))
    return Scenario(
        seed=seed,
        routes=routes,
        messages=messages,
        faults=faults,
        habits=replace(HABITS[broker], circle=random.choice(allowed.circles)),
        receive_maximum=random.choice((2, 10, 30)),
        dead_letter_max=3 if allowed.few_letters and random.random() < 0.1 else 100_000,
        latency=random.choice((0.001, 0.005, 0.05)),
        splits=random.random() < 0.2,
        numbered=random.random() < 0.8,
    )


def _messages(random: Random, allowed: Allowed, routes: tuple[str, ...], span: float) -> tuple[Device, ...]:
    # Equal messages on one topic for each route are the hardest to tell apart, as heartbeats are.
    heartbeats = random.random() < 0.25
    most_keys = 1 if heartbeats else random.choice((1, 2, 3))
    keys = [f"{route}/{key}" for route in routes for key in ("a", "b", "c")[:most_keys]]
    poison = sorted(allowed.poison)
    rate = random.choice((0.0, 0.0, 0.1, 0.3)) if poison and not heartbeats else 0.0
    some = random.sample(poison, min(len(poison), 2))
    equal = heartbeats or random.random() < 0.4
    bursts = [random.random() for _ in range(random.choice((1, 2, 4)))]
    spread = random.random() < 0.3
    delays = not heartbeats and random.random() < 0.5
    good = ("good",) * 8 if heartbeats else allowed.good
    messages = []
    for _ in range(random.choice((1, 4, 8, 12, 16, 24))):
        topic = random.choice(keys)
        kind = random.choice(some) if random.random() < rate else random.choice(good)
        messages.append(
            Device(
                n=0,
                at=START + (random.random() if spread else random.choice(bursts)) * span,
                topic=topic,
                kind=kind,
                ms=random.choice((0, 0, 0, 0, 10, 300)) if delays else 0,
                key=f"k{random.randrange(8)}",
                qos=0 if random.random() < 0.03 else 1,
            )
        )
    messages.sort(key=lambda message: message.at)
    return tuple(replace(message, n=n, value="open" if equal else f"value {n}") for n, message in enumerate(messages))


def _moment(random: Random, messages: tuple[Device, ...], span: float) -> float:
    """Return when a fault begins: mostly while a message is under way, sometimes at any time."""
    if random.random() < 0.7:
        return random.choice(messages).at + random.random() * random.choice((0.01, 0.05, 0.5))
    return random.random() * (START + span)


def _fault(random: Random, allowed: Allowed, messages: tuple[Device, ...], span: float) -> Fault:
    kind = random.choice(sorted(allowed.faults))
    at = _moment(random, messages, span)
    seconds = random.choice(allowed.seconds)
    if kind in {"cut_up", "cut_down"}:
        return Fault(kind, at, count=random.choice((1, 3, 4, 8, 20, 100)))
    if kind == "cut":
        return Fault(kind, at)
    if kind == "db_hangs":
        return Fault(kind, at, seconds, how=random.choice(("", "breaks")))
    if kind == "db_lock":
        return Fault(kind, at, seconds, how=random.choice(("", "", "55P03", "57014")))
    if kind == "db_code":
        where = random.choice(("statement", "commit"))
        return Fault(kind, at, count=random.choice((1, 2, 5)), how=f"{random.choice(CODES)} at {where}")
    if kind == "db_commit_lost":
        how = random.choice(("done", "undone", "later"))
        return Fault(kind, at, random.choice((0.05, 0.5, 2.0)) if how == "later" else 0.0, random.choice((1, 1, 3)), how)
    if kind == "death":
        return Fault(kind, at, seconds, count=random.randrange(1, 60))
    if kind == "schema":
        return Fault(kind, at, seconds, how=random.choice(("42P01", "42703", "42501")))
    return Fault(kind, at, seconds)
