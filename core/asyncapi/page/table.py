"""A JSON Schema as a table that people read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.asyncapi.page.limits import limits
from core.asyncapi.page.references import MAX_DEPTH, References, model_name
from core.asyncapi.page.words import Piece, Words, inline, join, plain

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Row:
    """One field. ``name`` is its path from the top, such as ``position.latitude`` or ``tags[].key``."""

    name: str
    type: Words
    required: bool
    deprecated: bool
    description: Words
    limits: list[Words]


def rows(schema: Any, references: References) -> list[Row]:
    """Return a row for each property of ``schema``."""
    return [_row(*found, references) for found in _properties(references.resolve(schema), "", 0)]


def type_of(schema: Any) -> Words:
    """Return the type in words. Models are links to their own tables."""
    if not isinstance(schema, dict):
        return plain("anything")
    if "$ref" in schema:
        return (Piece(model_name(schema), "model"),)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return join(dict.fromkeys(type_of(option) for option in schema[key]), " or ")
    if "allOf" in schema:
        return join((type_of(part) for part in schema["allOf"]), " and ")
    named = schema.get("type")
    if named == "array":
        items = schema.get("items", {})
        return join(["list of ", join(map(type_of, items), ", ") if isinstance(items, list) else type_of(items)])
    if named == "object" and isinstance(schema.get("additionalProperties"), dict):
        return join(["map of ", type_of(schema["additionalProperties"])])
    if named is None and ("const" in schema or schema.get("enum")):
        return plain(_type_of_value(schema.get("const", (schema.get("enum") or [None])[0])))
    if isinstance(named, list):
        return join(map(str, named), " or ")
    return plain(f"{named or 'anything'} ({schema['format']})" if "format" in schema else f"{named or 'anything'}")


def _properties(schema: Any, before: str, depth: int) -> Iterator[tuple[str, Any, bool]]:
    """Yield each property's name, its schema and whether it is required. Models inside have tables of their own."""
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return
    for name, part in schema.get("properties", {}).items():
        yield f"{before}{name}", part, name in schema.get("required", ())
        if isinstance(part, dict):
            yield from _properties(part, f"{before}{name}.", depth + 1)
            yield from _properties(part.get("items"), f"{before}{name}[].", depth + 1)


def _row(name: str, schema: Any, required: bool, references: References) -> Row:  # noqa: FBT001
    own = schema if isinstance(schema, dict) else {}
    description = inline(str(own.get("description") or ""))
    return Row(name, type_of(schema), required, bool(own.get("deprecated")), description, limits(schema, references))


def _type_of_value(value: Any) -> str:
    return {str: "string", bool: "boolean", int: "integer", float: "number"}.get(type(value), "value")
