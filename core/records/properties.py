"""The properties of a message, read back from JSON."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from core.mqtt.message import Properties


def properties_from_json(properties: dict[str, Any] | None) -> Properties | None:
    """Return the properties that ``core.codecs.plain.json_ready`` made ready for JSON. Return None for none."""
    if not properties:
        return None
    given = dict(properties)
    if "correlation_data" in given:
        given["correlation_data"] = base64.b64decode(given["correlation_data"])
    if "user_property" in given:
        given["user_property"] = [(name, value) for name, value in given["user_property"]]
    return cast("Properties", given)
