"""Values in the forms that codecs and JSON can hold."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Set as AbstractSet
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID


def plain(value: Any) -> Any:
    """Return ``value`` one step plainer. What is in it may need a further step.

    There is such a step for pydantic models, dataclasses, whatever has a ``to_dict()``, enumerations, sets, tuples, UUIDs
    and Decimals (as strings), and dates and times (in ISO 8601). Raise TypeError for everything else.
    """
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, AbstractSet | tuple):
        return list(value)
    raise TypeError(f"there is no form for {type(value).__name__}")


def json_ready(value: Any) -> Any:
    """Return ``value`` as JSON can hold it, with everything in it.

    Dates and times are ISO 8601, durations seconds, Decimals and UUIDs text, bytes base64, enumerations their values. What
    has no such form is returned as it is.
    """
    match value:
        case Enum():
            return json_ready(value.value)
        case None | str() | int() | float():
            return value
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode("ascii")
        case timedelta():
            return value.total_seconds()
        case dict():
            return {str(name): json_ready(one) for name, one in value.items()}
        case list() | tuple() | set() | frozenset():
            return [json_ready(one) for one in value]
    try:
        return json_ready(plain(value))
    except TypeError:
        return value
