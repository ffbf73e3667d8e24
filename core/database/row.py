"""A row as plain data."""

from __future__ import annotations

from typing import Any

from sqlalchemy import inspect

from core.codecs.plain import json_ready


def to_dict(row: object) -> dict[str, Any]:
    """Give the loaded columns of ``row`` by the names of its attributes, JSON-ready.

    Dates and times are ISO 8601, durations seconds, Decimals and UUIDs text, bytes base64, enums their values. Columns
    that are not loaded (deferred ones) are left out.
    """
    state = inspect(row)
    assert state is not None  # noqa: S101 - only ever called on mapped instances
    loaded = state.dict
    return {name: json_ready(loaded[name]) for name in state.mapper.column_attrs.keys() if name in loaded}  # noqa: SIM118
