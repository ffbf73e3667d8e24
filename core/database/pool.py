"""The options of a pool of connections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict


class Pool(TypedDict, total=False):
    """What ``Model.configure`` takes for the pool; see PoolOptions."""

    pool_size: int
    max_overflow: int
    pool_timeout: float
    pool_recycle: float


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How many connections are kept, and for how long. Times are in seconds.

    - ``pool_size``: connections that are kept.
    - ``max_overflow``: connections that are made beyond those when all are taken.
    - ``pool_timeout``: how long a caller waits for one.
    - ``pool_recycle``: the age from which a connection is replaced.
    """

    pool_size: int = 10
    max_overflow: int = 20
    pool_timeout: float = 30
    pool_recycle: float = 3600
