"""The product keeps its promise in a few hundred runs on virtual time, and the simulator finds what breaks it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.delivery.acknowledge import Acknowledgements
from core.delivery.lanes import Lanes
from core.delivery.ledger import Ledger
from core.handling.end import End
from core.records.packets import Packets
from tests.simulation.run import run
from tests.simulation.scenario import ALL, SETS, START, Allowed, Device, Fault, Scenario, scenario_of
from tests.simulation.shrink import shrink, story
from tests.simulation.world.broker import Habits

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from core.handling.delivery import Delivery

# mqtt5 tells what is no UTF-8 twice: by an exception, and by one that nobody can catch.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ROOT = Path(__file__).parents[2]
SEEDS = 300
AT_ONCE = 50


@pytest.mark.parametrize(("of", "first"), [*(("all", first) for first in range(0, SEEDS, AT_ONCE)), ("lists", 0)])
def test_no_seed_breaks_the_promise(of: str, first: int) -> None:
    for seed in range(first, first + AT_ONCE):
        scenario = scenario_of(seed, SETS[of])
        result = run(scenario)
        if result.broken:
            pytest.fail(story(shrink(scenario, min(result.names))))


@pytest.mark.parametrize(("of", "seed"), [("all", 481), ("all", 1230), ("all", 70285), ("all", 71238), ("lists", 133)])
def test_what_a_seed_has_found_is_mended(of: str, seed: int) -> None:
    assert not run(scenario_of(seed, SETS[of])).broken


STOPS = Allowed(faults=frozenset({"stop", "cut", "db_lock", "db_hangs"}), poison=ALL.poison - {"ill_formed"})


@pytest.mark.parametrize("seed", [150, 409, 424])
def test_a_stop_within_a_statement_leaves_nothing_behind(seed: int) -> None:
    # The first went on and counted more ends than messages, and the others kept a connection.
    assert run(scenario_of(seed, STOPS)).broken == ()


@pytest.mark.parametrize("seed", [316, 318])
def test_a_second_worker_is_told_what_the_first_one_commits(seed: int) -> None:
    assert run(scenario_of(seed)).broken == ()


def test_a_seed_runs_the_same_in_every_process() -> None:
    printed = (
        "from tests.simulation.run import run\n"
        "from tests.simulation.scenario import scenario_of\n"
        "for seed in range({0}, 40): print(seed, run(scenario_of(seed)).digest)"
    )
    # The second process begins with other seeds, so that nothing of an earlier run may count in a later one.
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", printed.format(first)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for first, hash_seed in ((20, "1"), (25, "2"))
    ]
    one, other = (process.communicate()[0].splitlines() for process in processes)
    assert len(one) == 20
    assert one[5:] == other


# -- what is broken on purpose is found ---------------------------------------------------------------------------------


def acknowledged_on_receipt(monkeypatch: pytest.MonkeyPatch) -> None:
    expect = Acknowledgements.expect

    def at_once(self: Acknowledgements, delivery: Delivery) -> None:
        expect(self, delivery)
        self.settle(delivery)

    monkeypatch.setattr(Acknowledgements, "expect", at_once)


def no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Packets, "receive", lambda self, message: False)


def no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    put = Lanes.put

    def anywhere(self: Lanes, key: Hashable, delivery: Delivery) -> None:
        put(self, None, delivery)

    monkeypatch.setattr(Lanes, "put", anywhere)


def no_count_of_redeliveries(monkeypatch: pytest.MonkeyPatch) -> None:
    count = Ledger.count

    def count_most(self: Ledger, end: End, messages: int = 1) -> None:
        if end is not End.DEDUPLICATED:
            count(self, end, messages)

    monkeypatch.setattr(Ledger, "count", count_most)


def no_acknowledgement_of_redeliveries(monkeypatch: pytest.MonkeyPatch) -> None:
    rejoin = Acknowledgements.rejoin

    def forget(self: Acknowledgements, message: object) -> bool:
        joined = rejoin(self, message)  # type: ignore[arg-type]
        if joined:
            self._pending.pop()
        return joined

    monkeypatch.setattr(Acknowledgements, "rejoin", forget)


@pytest.mark.parametrize(
    ("break_it", "of", "name"),
    [
        (acknowledged_on_receipt, "all", "acknowledged too early"),
        (no_record, "identity", "stored twice"),
        (no_order, "all", "order"),
        (no_count_of_redeliveries, "all", "ledger"),
        (no_acknowledgement_of_redeliveries, "identity", "waits for ever"),
    ],
)
def test_what_is_broken_on_purpose_is_found(
    break_it: Callable[[pytest.MonkeyPatch], None], of: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch)
    assert any(name in run(scenario_of(seed, SETS[of])).names for seed in range(SEEDS))


def test_a_seed_that_fails_becomes_a_short_story(monkeypatch: pytest.MonkeyPatch) -> None:
    acknowledged_on_receipt(monkeypatch)
    seed = next(seed for seed in range(SEEDS) if "acknowledged too early" in run(scenario_of(seed)).names)
    shortest = shrink(scenario_of(seed), "acknowledged too early")
    assert (len(shortest.messages), len(shortest.faults)) == (1, 0)
    told = story(shortest)
    assert "worker 1   starts" in told
    assert "BROKEN  acknowledged too early" in told


# -- what was found stays mended -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("of", "seed"), [("publishing", 62), ("publishing", 87), ("numbers", 821)])
def test_a_seed_that_once_failed(of: str, seed: int) -> None:
    assert not run(scenario_of(seed, SETS[of])).broken


@pytest.mark.parametrize("route", ["plain", "list", "exact"])
def test_a_handler_that_publishes_while_the_broker_is_away_for_long(route: str) -> None:
    message = Device(0, 2.0, f"{route}/a", kind="publishes")
    told = told_in(Scenario(1, (route,), (message,), (Fault("broker_restart", 2.01, 60.0),)))
    assert "is up again" in told
    assert any("INSERT INTO readings" in what for what in told)


# -- the model does what it is there for ---------------------------------------------------------------------------------


def messages(*topics: str) -> tuple[Device, ...]:
    return tuple(Device(n, START + n / 10, topic) for n, topic in enumerate(topics))


def told_in(scenario: Scenario) -> list[str]:
    result = run(scenario)
    assert not result.broken
    return [what for _, _, what in result.told]


def test_most_messages_reach_the_worker() -> None:
    sent = stored = 0
    for seed in range(20):
        result = run(scenario_of(seed))
        sent += sum(message.qos for message in result.scenario.messages)
        stored += sum(what.startswith("gets PUBACK") for _, _, what in result.told)
    assert stored > 0.9 * sent > 0


def test_a_process_that_is_killed_comes_back_and_finishes_the_rest() -> None:
    told = told_in(Scenario(1, ("exact",), messages("exact/a", "exact/a"), (Fault("death", START, 0.5, count=8),)))
    assert "is killed" in told
    assert told.count("starts") == 2
    assert any(what.startswith("sends message 0") and "again, DUP" in what for what in told)


def test_a_commit_whose_answer_is_lost_may_be_done_later() -> None:
    told = told_in(Scenario(1, ("exact",), messages("exact/a"), (Fault("db_commit_lost", START, 2.0, 1, "later"),)))
    assert "connection 1 breaks within COMMIT, which will be later" in told
    assert "connection 1 commits" in told


def test_a_connection_is_cut_within_a_packet() -> None:
    told = told_in(Scenario(1, ("plain",), messages("plain/a"), (Fault("cut_down", START - 0.1, count=3),)))
    assert "the connection is cut" in told
    assert told.count("starts") == 1


def test_a_broker_may_number_anew_on_each_connection() -> None:
    faults = (Fault("cut", START + 0.25),)
    told = told_in(Scenario(1, ("plain",), messages(*["plain/a"] * 3), faults, habits=Habits(numbers="anew")))
    assert "sends message 0 on plain/a as 1" in told
    assert not any("as 4" in what for what in told)
