"""The command `simulate`: publish made-up readings of many devices."""

from __future__ import annotations

import itertools
import json
import math
import random
from time import time
from typing import TYPE_CHECKING

from bootstrap.commands.progress import progress
from bootstrap.commands.publish import Stream, publishing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from config.settings import Settings

KINDS = (
    # type, unit, mean, change over a day, noise, decimals
    ("temperature", "celsius", 18.0, 5.0, 0.2, 2),
    ("humidity", "percent", 55.0, -12.0, 1.0, 1),
    ("power", "watt", 420.0, 260.0, 25.0, 0),
    ("voltage", "volt", 230.0, 1.5, 0.4, 1),
)
DAY = 86_400


class Device:
    """A device that measures one thing, and differs a little from the others of its kind."""

    def __init__(self, number: int, chance: random.Random) -> None:
        self.kind, self.unit, mean, self._swing, self._noise, self._decimals = KINDS[number % len(KINDS)]
        self.topic = f"devices/{self.kind}-{number:04d}/data"
        self._mean = mean * chance.uniform(0.9, 1.1)
        self._chance = chance

    def reading(self, now: float) -> bytes:
        """Return the body of a reading at ``now``, in seconds since the epoch.

        The value follows the time of day, highest or lowest in the afternoon, and has noise.
        """
        daily = math.sin((now % DAY) / DAY * 2 * math.pi - math.pi * 2 / 3)
        value = self._mean + self._swing * daily + self._chance.gauss(0, self._noise)
        reading = {
            "type": self.kind,
            "value": round(value, self._decimals),
            "unit": self.unit,
            "timestamp": round(now, 3),
        }
        return json.dumps(reading).encode()


def readings(devices: int, total: int | None) -> Iterator[tuple[str, bytes]]:
    """Yield the topics and bodies of ``total`` readings, one device after the other. If ``total`` is None, never end."""
    chance = random.Random(0)  # noqa: S311 - readings are no secret
    fleet = [Device(number, chance) for number in range(1, devices + 1)]
    for device in itertools.islice(itertools.cycle(fleet), total):
        yield device.topic, device.reading(time())


async def simulate(
    settings: Settings, console: Console, *, devices: int, rate: float, duration: float | None, qos: int
) -> int:
    """Publish ``rate`` readings of ``devices`` devices a second, for ``duration`` seconds.

    If ``duration`` is None, go on until Ctrl-C. Return the exit code: 1 if a message was not acknowledged.
    """
    total = None if duration is None else max(round(rate * duration), 1)
    async with publishing(settings) as publisher:
        with progress(console, f"{devices} devices", total) as advance:
            stream = Stream(publisher, qos, advance)
            try:
                await stream.send(readings(devices, total), rate)
            finally:
                console.print(str(stream), markup=False)
    return 0 if stream.acknowledged == stream.sent else 1
