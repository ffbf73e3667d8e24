"""Run many seeds in all cores, or one seed with its story: ``python -m tests.simulation --seeds 10000`` or ``--seed 17``."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter

from tests.simulation.many import Failure, run_all
from tests.simulation.run import run
from tests.simulation.scenario import SETS, scenario_of
from tests.simulation.shrink import shrink, story

MOST_STORIES = 2
"""Stories for each invariant that was broken."""


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
