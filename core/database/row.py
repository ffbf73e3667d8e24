"""A row as plain data."""

from __future__ import annotations

import base64
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from sqlalchemy import inspect


def to_dict(row: object) -> dict[str, Any]:
    """Give the loaded columns of ``row`` by the names of its attributes, JSON-ready.

    Dates and times are ISO 8601, durations seconds, Decimals and UUIDs text, bytes base64, enums their values. Columns
    that are not loaded (deferred ones) are left out.
    """
    state = inspect(row)
    assert state is not None  # noqa: S101 - only ever called on mapped instances
    loaded = state.dict
    return {name: json_ready(loaded[name]) for name in state.mapper.column_attrs.keys() if name in loaded}  # noqa: SIM118


def json_ready(value: Any) -> Any:
    """Give ``value`` as JSON can hold it."""
    match value:
        case Enum():
            return json_ready(value.value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal() | UUID():
            return str(value)
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode("ascii")
        case dict():
            return {str(name): json_ready(one) for name, one in value.items()}
        case list() | tuple() | set() | frozenset():
            return [json_ready(one) for one in value]
        case _:
            return value
