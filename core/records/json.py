"""Values as JSON can hold them."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from core.mqtt.message import Properties


def json_ready(values: Any) -> dict[str, Any]:
    """Give ``values`` as JSON can hold them: bytes in base64, times in ISO 8601."""
    ready = {}
    for name, value in values.items():
        if isinstance(value, bytes):
            ready[name] = base64.b64encode(value).decode("ascii")
        elif isinstance(value, datetime):
            ready[name] = value.isoformat()
        else:
            ready[name] = value
    return ready


def from_json(properties: dict[str, Any] | None) -> Properties | None:
    """Give properties back that ``json_ready`` made ready."""
    if not properties:
        return None
    given = dict(properties)
    if "correlation_data" in given:
        given["correlation_data"] = base64.b64decode(given["correlation_data"])
    if "user_property" in given:
        given["user_property"] = [(name, value) for name, value in given["user_property"]]
    return cast("Properties", given)
