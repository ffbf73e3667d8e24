"""The properties of MQTT 5 for requests and replies (4.10), and the reply that reports an error."""

from __future__ import annotations

from typing import Any

RESPONSE_TOPIC: dict[str, Any] = {
    "type": "string",
    "description": "Response Topic (MQTT 5): where to send the reply.",
}
CORRELATION_DATA: dict[str, Any] = {
    "type": "string",
    "description": "Correlation Data (MQTT 5): bytes of the requester's own, which tell its replies apart.",
}
CORRELATION_ID: dict[str, Any] = {
    "description": "The Correlation Data of the request, which comes back with the reply.",
    "location": "$message.header#/correlationData",
}
REPLY_ADDRESS: dict[str, Any] = {
    "description": "Sent to the Response Topic of the request; without one nothing is sent.",
    "location": "$message.header#/responseTopic",
}
ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {
                "type": {"type": "string", "description": "What kind of error it was."},
                "message": {"type": "string", "description": "What was wrong, in one line."},
                "fields": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "What was wrong with which field, where the payload did not fit its schema.",
                },
            },
        }
    },
}
ERROR_EXAMPLE: dict[str, Any] = {"error": {"type": "ValueError", "message": "the value is out of range"}}


def headers(**properties: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a Message Object that describes ``properties`` of a PUBLISH and says how replies are correlated."""
    return {"headers": {"type": "object", "properties": properties}, "correlationId": CORRELATION_ID}
