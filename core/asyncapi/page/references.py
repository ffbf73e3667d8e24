"""What the references of a document lead to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_DEPTH = 6


def model_name(schema: Mapping[str, Any]) -> str:
    """Return the name of the model that ``schema`` refers to."""
    return str(schema["$ref"]).rpartition("/")[2]


class References:
    """The references of one document. ``models`` are its schemas by their names."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self.models: dict[str, Any] = document.get("components", {}).get("schemas", {})

    def at(self, reference: Mapping[str, str]) -> Any:
        """Return the part of the document that ``reference`` leads to. Keys of the document need no unescaping."""
        found: Any = self._document
        for part in reference["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return found

    def resolve(self, schema: Any) -> dict[str, Any]:
        """Return the model that ``schema`` refers to, or ``schema`` itself. It is empty if there is no such model."""
        for _ in range(MAX_DEPTH):
            if not isinstance(schema, dict):
                return {}
            if "$ref" in schema:
                schema = self.models.get(model_name(schema))
            elif len(schema.get("allOf", ())) == 1:
                beside = {key: value for key, value in schema.items() if key != "allOf"}
                schema = {**self.resolve(schema["allOf"][0]), **beside}
            else:
                return schema
        return {}
