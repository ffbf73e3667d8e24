"""Run many seeds in all cores, or one seed with its story: ``python -m tests.simulation --seeds 10000`` or ``--seed 17``."""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections import Counter
from functools import partial
from typing import NamedTuple

from tests.simulation.run import run
from tests.simulation.scenario import SETS, scenario_of
from tests.simulation.shrink import shrink, story

AT_ONCE = 50
"""Seeds that a process takes at a time."""
MOST_STORIES = 2
"""Stories for each invariant that was broken."""


class Failure(NamedTuple):
    """A seed in which something was broken. ``broken`` says what, each as "name: what happened"."""

    seed: int
    broken: tuple[str, ...]


def failures_of(seeds: range, of: str) -> list[Failure]:
    """Run ``seeds`` of the set named ``of`` and return those that failed."""
    found = []
    for seed in seeds:
        try:
            broken = run(scenario_of(seed, SETS[of])).broken
        except Exception as error:
            broken = (f"simulator: {type(error).__name__}: {error}",)
        if broken:
            found.append(Failure(seed, broken))
    gc.collect()
    return found


def run_all(first: int, seeds: int, of: str, processes: int) -> list[Failure]:
    """Run ``seeds`` seeds of ``of`` from ``first`` on in ``processes`` processes. Return those that failed."""
    chunks = [range(start, min(start + AT_ONCE, first + seeds)) for start in range(first, first + seeds, AT_ONCE)]
    began = told = time.monotonic()
    failures: list[Failure] = []
    ran = 0
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for found in pool.imap_unordered(partial(failures_of, of=of), chunks):
            ran = min(ran + AT_ONCE, seeds)
            failures += found
            now = time.monotonic()
            if now - told > 5 or ran == seeds:
                told = now
                print(f"{ran:,} of {seeds:,} seeds, {ran / (now - began):.1f} a second, {len(failures)} failed", flush=True)
    return sorted(failures)


def report(failures: list[Failure], of: str) -> None:
    """Print which invariants were broken by which seeds, and a story for the first seeds of each."""
    by_name: dict[str, list[int]] = {}
    for failure in failures:
        for name in Counter(broken.partition(":")[0] for broken in failure.broken):
            by_name.setdefault(name, []).append(failure.seed)
    for name, seeds in sorted(by_name.items()):
        print(f"\n{name}: {len(seeds)} seeds, the first of them {', '.join(map(str, seeds[:10]))}")
        for seed in seeds[:MOST_STORIES]:
            if name != "simulator":
                print("\n" + story(shrink(scenario_of(seed, SETS[of]), name)), flush=True)


def main() -> int:
    """Return the exit code: 1 where a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds run, 1000 by default")
    parser.add_argument("--first", type=int, default=0, help="the first of them, 0 by default")
    parser.add_argument("--seed", default="", help="one seed, whose story is printed")
    parser.add_argument("--set", choices=SETS, default="all", help="what the runs are made of, all by default")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="all cores by default")
    options = parser.parse_args()
    # The codec panics at what is no UTF-8, and would print a backtrace each time.
    os.environ["RUST_BACKTRACE"] = "0"
    if options.seed:
        scenario = scenario_of(int(options.seed), SETS[options.set])
        result = run(scenario)
        print(story(scenario))
        for name in sorted(result.names):
            print(f"\nthe shortest that breaks {name!r}:\n\n{story(shrink(scenario, name))}")
        return bool(result.broken)
    failures = run_all(options.first, options.seeds, options.set, options.processes)
    report(failures, options.set)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
