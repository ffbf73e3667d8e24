"""The application under test: its table, its routes, and handlers that do what their messages say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sqlalchemy import ForeignKey, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from core.errors import BatchError, Reject
from core.model import Model
from core.retry import Retry
from core.router import Router

BREAKER_AFTER = 5
"""Messages of a route that fail in a row until it stands."""
TIMEOUT = 10.0
"""Seconds that a handler may take."""
ROUTES: dict[str, dict[str, Any]] = {
    "plain": {"delivery": "at_least_once"},
    "exact": {"delivery": "exactly_once"},
    "list": {"delivery": "at_least_once", "batch": 8},
    "exactlist": {"delivery": "exactly_once", "batch": 8},
    "dedup": {"delivery": "exactly_once", "dedup": "key"},
    "free": {"delivery": "exactly_once", "order_by": None},
    "once": {"delivery": "at_most_once"},
}
LISTS: dict[str, dict[str, Any]] = {
    "exactlist": ROUTES["exactlist"],
    "shortlist": {"delivery": "exactly_once", "batch": 3},
    "inside": {"delivery": "at_least_once", "batch": 8},
    "loose": {"delivery": "at_least_once", "batch": 8, "atomic": False},
}
"""Routes with lists, in all ways. Some have runs of their own only, so that no seed becomes another one."""
EXACT = frozenset({"exact", "exactlist", "shortlist", "dedup", "free"})
POISON = frozenset(
    {"reject", "key_error", "null", "orphan", "slow", "partial", "unreadable", "disk_full", "conflict", "ill_formed"}
)
"""Kinds of messages that can never be stored. All others are good."""
WHOLE, PARTLY, PUBLISHED = 0, 1, 2
"""Parts of a message in the table: what stands for it, what a failing handler wrote first, what is published beside it."""


class Table(DeclarativeBase):
    """The parent of the simulation's models, apart from all others."""


class Owner(Table):
    """What readings belong to. There is none."""

    __tablename__ = "owners"
    id: Mapped[int] = mapped_column(primary_key=True)


class Reading(Table):
    """One row for each message."""

    __tablename__ = "readings"
    id: Mapped[int] = mapped_column(primary_key=True)
    topic: Mapped[str] = mapped_column(Text)
    n: Mapped[int | None]
    part: Mapped[int]
    value: Mapped[str] = mapped_column(Text)
    owner: Mapped[int | None] = mapped_column(ForeignKey("owners.id", deferrable=True, initially="DEFERRED"))


class _Bugs:
    """Whether the handlers have a bug at the moment."""

    is_deployed: Callable[[], bool] = staticmethod(lambda: False)


BUGS = _Bugs()


def number_of(properties: Any) -> int | None:
    """Return the number of a message, which no part of the product looks at. None where the message does not carry it."""
    for name, value in properties.get("user_property", ()) if properties else ():
        if name == "n":
            return int(value)
    return None


async def handle(context: Any) -> None:
    """Store one message, or fail in the way that it says."""
    payload, topic, n = context["payload"], context["topic"], number_of(context["properties"])
    kind = payload["kind"]
    if BUGS.is_deployed():
        raise KeyError("a bug that was deployed")
    if payload["ms"]:
        await asyncio.sleep(payload["ms"] / 1000)
    if kind == "reject":
        raise Reject("the message says so")
    if kind == "key_error":
        raise KeyError("the message says so")
    if kind == "slow":
        await asyncio.sleep(6 * TIMEOUT)
    if kind == "flaky" and context["attempt"] == 1:
        raise ValueError("the first time")
    if kind == "partial":
        await Model.create(Reading, topic=topic, n=n, part=PARTLY, value="partly", owner=None)
    value = None if kind in {"null", "partial"} else kind if kind in POISON else payload["value"]
    await Model.create(Reading, topic=topic, n=n, part=WHOLE, value=value, owner=999 if kind == "orphan" else None)
    if kind == "publishes":
        await context["publish"](f"out/{topic}", str(n), qos=1)


async def handle_many(contexts: list[Any]) -> None:
    """Store a list of messages."""
    if any(context["payload"]["kind"] == "reject" for context in contexts):
        raise Reject("one of the list says so")
    named = _named(contexts)
    for place, context in enumerate(contexts):
        if place not in named:
            await handle(context)
    if named:
        raise BatchError(named)


async def handle_many_in_transaction(contexts: list[Any]) -> None:
    """Store a list of messages in one transaction, as the documentation says. Blame messages after its commit."""
    named = _named(contexts)
    async with Model.transaction():
        await handle_many([context for place, context in enumerate(contexts) if place not in named])
    if named:
        raise BatchError(named)


async def handle_many_within_transaction(contexts: list[Any]) -> None:
    """Store a list of messages in one transaction. Blame messages before its end, so that it is rolled back."""
    named = _named(contexts)
    async with Model.transaction():
        await handle_many([context for place, context in enumerate(contexts) if place not in named])
        if named:
            raise BatchError(named)


def _named(contexts: list[Any]) -> dict[int, Exception]:
    """Return the errors of the messages that the handler of a list blames by name."""
    return {
        place: KeyError("this one") for place, context in enumerate(contexts) if context["payload"]["kind"] == "key_error"
    }


HANDLERS: dict[str, Callable[..., Any]] = {
    "list": handle_many_in_transaction,
    "exactlist": handle_many,
    "shortlist": handle_many,
    "inside": handle_many_within_transaction,
    "loose": handle_many_within_transaction,
}
"""The handlers of lists, by their routes."""


@lru_cache
def router(routes: tuple[str, ...]) -> Router:
    """Return a router with ``routes``."""
    made = Router(timeout=TIMEOUT, retry=Retry())
    for name in routes:
        made.on(f"{name}/<key>", HANDLERS.get(name, handle), name=name, **(ROUTES | LISTS)[name])
    made.freeze()
    return made
