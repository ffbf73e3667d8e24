"""A row as plain data."""

from __future__ import annotations

from typing import Any

from sqlalchemy import inspect

from core.codecs.plain import json_ready


def to_dict(row: object) -> dict[str, Any]:
    """Return the loaded columns of ``row``, by the names of its attributes, as values that JSON can hold.

    - Dates and times are text in ISO 8601, with the offset from UTC if they have a time zone.
    - Durations are seconds.
    - Decimals and UUIDs are text.
    - Bytes are text in base64.
    - Enumerations are their values.

    Columns that are not loaded, such as deferred ones, are left out.
    """
    state = inspect(row)
    assert state is not None  # noqa: S101 - callers have mapped instances only
    loaded = state.dict
    return {name: json_ready(loaded[name]) for name in state.mapper.column_attrs.keys() if name in loaded}  # noqa: SIM118
