"""Memory of the worker over many messages: after 100,000, and at the end.

python -m benchmarks.memory [--messages 2000000]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import asyncpg

from benchmarks.stores import TABLE
from benchmarks.whole_way import Machine, System

EARLY = 100_000


async def measure(messages: int) -> None:
    """Send ``messages`` messages to a worker, and print its memory along the way."""
    system = System("exactly_once", "", messages, options='delivery="exactly_once"')
    with tempfile.TemporaryDirectory(prefix="rqbench") as folder:
        machine = Machine(Path(folder))
        url = machine.postgres.new_database()
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        await connection.execute(TABLE)
        machine.fresh_broker()
        process, popen = machine.start(system, url)
        while not await connection.fetchval("SELECT max(id) FROM readings"):
            # The worker is ready once it stores something.
            await machine.publish(1)
            await asyncio.sleep(0.3)
        await asyncio.sleep(1)
        await connection.execute("TRUNCATE readings RESTART IDENTITY")
        publishing = asyncio.create_task(machine.publish(messages))
        stored, early, told, began = 0, 0.0, 0, time.monotonic()
        while stored < messages:
            await asyncio.sleep(0.5)
            # The highest number stands for the count: counting millions of rows would cost more than storing them.
            stored = (await connection.fetchval("SELECT max(id) FROM readings")) or 0
            memory = process.memory_info().rss / 2**20
            if not early and stored >= EARLY:
                early = memory
            if stored - told >= messages // 10:
                told = stored
                print(f"{stored:>10,} messages  {memory:6.1f} MiB  {stored / (time.monotonic() - began):,.0f}/s", flush=True)
        await publishing
        rows = await connection.fetchval("SELECT count(*) FROM readings")
        end = process.memory_info().rss / 2**20
        print(f"{rows:,} rows; {early:.1f} MiB after {EARLY:,}, {end:.1f} MiB at the end: {end - early:+.1f} MiB")
        process.kill()
        popen.wait()
        await connection.close()
        machine.stop()


def main() -> None:
    """Run with the number of messages that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=2_000_000)
    asyncio.run(measure(parser.parse_args().messages))


if __name__ == "__main__":
    main()
