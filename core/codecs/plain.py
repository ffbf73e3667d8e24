"""What handlers have, as the binary codecs can write it."""

from __future__ import annotations

import dataclasses
from collections.abc import Set as AbstractSet
from datetime import date, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID


def plain(value: Any) -> Any:
    """Give ``value`` one step plainer: what is in it may be of such types again. Raises TypeError where there is no way.

    Takes pydantic models, dataclasses, whatever has a ``to_dict()``, enumerations, sets and tuples, UUIDs and Decimals
    (as strings), dates and times (in ISO 8601).
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
