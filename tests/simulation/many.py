"""Many seeds, in many processes."""

from __future__ import annotations

import gc
import multiprocessing
import time
from functools import partial
from typing import NamedTuple

from tests.simulation.run import run
from tests.simulation.scenario import SETS, scenario_of

AT_ONCE = 50
"""Seeds that a process takes at a time."""


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
