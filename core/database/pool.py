"""The options of a pool of connections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict


class Pool(TypedDict, total=False):
    """The options of the pool that ``Model.configure`` takes. PoolOptions explains them."""

    pool_size: int
    max_overflow: int
    pool_timeout: float
    pool_recycle: float
    pooler: str
    statement_timeout: float | None


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How many connections a pool keeps, and for how long. Times are in seconds.

    - ``pool_size``: the number of connections that are kept.
    - ``max_overflow``: the number of connections that are made beyond those while all are in use.
    - ``pool_timeout``: how long a caller waits for a connection before it gets an error.
    - ``pool_recycle``: the age at which a connection is replaced.
    - ``pooler``: "transaction" if a pooler such as PgBouncer stands before PostgreSQL, and gives each transaction any of its
      connections. Then statements have no names, since the next transaction may not know them.
    - ``statement_timeout``: how long a statement may take on PostgreSQL before it is given up. None: for ever.
    """

    pool_size: int = 10
    max_overflow: int = 20
    pool_timeout: float = 30
    pool_recycle: float = 3600
    pooler: str = ""
    statement_timeout: float | None = 20
