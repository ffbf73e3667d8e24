"""Examples of a JSON Schema: those that its author wrote, or else a made one, always the same for the same schema."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from core.asyncapi.regex_sample import sample

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_DEPTH = 12
MAX_ITEMS = 20
_BY_FORMAT = {
    "date-time": "2026-01-31T12:00:00Z",
    "date": "2026-01-31",
    "time": "12:00:00",
    "duration": "PT5M",
    "uuid": "3fa85f64-5717-4562-b3fc-2c963f66afa6",
    "email": "someone@example.com",
    "name-email": "Someone <someone@example.com>",
    "uri": "https://example.com/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "ipvanyaddress": "192.0.2.1",
    "ipv4network": "192.0.2.0/24",
    "ipv6network": "2001:db8::/32",
    "ipvanynetwork": "192.0.2.0/24",
    "ipv4interface": "192.0.2.1/24",
    "ipv6interface": "2001:db8::1/32",
    "ipvanyinterface": "192.0.2.1/24",
    "hostname": "host.example",
    "json-string": "{}",
    "base64": "dGV4dA==",
    "base64url": "dGV4dA==",
}


class Unmakeable(Exception):  # noqa: N818 - it never leaves this package
    """No example can be made of a schema."""


def examples(schema: Any, components: Mapping[str, Any]) -> tuple[list[Any], bool]:
    """Return examples of ``schema``, and whether its author wrote them.

    A made example has the constants, the defaults and the first value of each enumeration. It keeps to limits, lengths,
    patterns and formats. ``components`` are the models that ``schema`` refers to, by their names.

    Raise Unmakeable if no example can be made, such as of a model that must hold another one of itself.
    """
    maker = _Maker(components)
    written = maker.written(schema)
    if written:
        return written, True
    return [maker.make(schema, ())], False


class _Maker:
    def __init__(self, components: Mapping[str, Any]) -> None:
        self._components = components

    def written(self, schema: Any) -> list[Any]:
        """Return the examples that stand in ``schema``, or in the model that it refers to."""
        if not isinstance(schema, dict):
            return []
        if schema.get("examples"):
            return list(schema["examples"])
        if "example" in schema:
            return [schema["example"]]
        if "$ref" in schema:
            return self.written(self._components.get(schema["$ref"].rpartition("/")[2]))
        if len(schema.get("allOf", ())) == 1:
            return self.written(schema["allOf"][0])
        return []

    def make(self, schema: Any, within: tuple[str, ...]) -> Any:
        """Return an example. ``within`` are the names of the models that it is part of."""
        if schema is False or len(within) > MAX_DEPTH:
            raise Unmakeable
        if not isinstance(schema, dict):
            return {}
        written = self.written(schema)
        if written:
            return written[0]
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        if schema.get("default") is not None:
            return schema["default"]
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            if name in within:
                raise Unmakeable
            return self.make(self._components.get(name), (*within, name))
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return self._any(schema[key], within)
        if "allOf" in schema:
            return self._all(schema["allOf"], within)
        return self._typed(schema, within)

    def _any(self, options: list[Any], within: tuple[str, ...]) -> Any:
        """Return an example of the first option that has one. Null is tried last."""
        for option in sorted(options, key=lambda option: option == {"type": "null"}):
            try:
                return self.make(option, within)
            except Unmakeable:
                continue
        raise Unmakeable

    def _all(self, parts: list[Any], within: tuple[str, ...]) -> Any:
        made = [self.make(part, within) for part in parts]
        if len(made) == 1:
            return made[0]
        if not all(isinstance(one, dict) for one in made):
            raise Unmakeable
        return {key: value for one in made for key, value in one.items()}

    def _typed(self, schema: dict[str, Any], within: tuple[str, ...]) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((one for one in kind if one != "null"), "null")
        if kind == "object" or (kind is None and "properties" in schema):
            return self._object(schema, within)
        if kind == "array":
            return self._array(schema, within)
        if kind == "string":
            return _text(schema)
        if kind in {"integer", "number"}:
            return _number(schema, whole=kind == "integer")
        return {"boolean": True, "null": None, None: "anything"}.get(kind, "anything")

    def _object(self, schema: dict[str, Any], within: tuple[str, ...]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, part in schema.get("properties", {}).items():
            try:
                made[name] = self.make(part, within)
            except Unmakeable:
                if name in schema.get("required", ()):
                    raise
        least = schema.get("minProperties", 0)
        for name, part in self._others(schema, within, min(max(least, 0 if made else 1), MAX_ITEMS)):
            try:
                made[name] = self.make(part, within)
            except Unmakeable:
                break
        if len(made) < least:
            raise Unmakeable
        return made

    def _others(self, schema: dict[str, Any], within: tuple[str, ...], count: int) -> list[tuple[str, Any]]:
        """Return names and schemas for up to ``count`` properties that ``schema`` allows without naming them."""
        for pattern, part in schema.get("patternProperties", {}).items():
            name = sample(pattern)
            return [] if name is None else [(name, part)][:count]
        part = schema.get("additionalProperties")
        if not isinstance(part, dict):
            return []
        rule = schema.get("propertyNames", {})
        name = self.make({"type": "string"} | rule, within) if rule else "name"
        names = rule.get("enum") or [name, *(f"{name}{n}" for n in range(2, count + 1))]
        return [(name, part) for name in names[:count]]

    def _array(self, schema: dict[str, Any], within: tuple[str, ...]) -> list[Any]:
        items, least = schema.get("items", {}), schema.get("minItems", 0)
        if least > MAX_ITEMS:
            raise Unmakeable
        if isinstance(items, list):
            return [self.make(item, within) for item in items]
        if schema.get("maxItems") == 0:
            return []
        try:
            one = self.make(items, within)
        except Unmakeable:
            if least:
                raise
            return []
        if least > 1 and schema.get("uniqueItems"):
            return _different(one, items, least)
        return [one] * max(1, least)


def _different(one: Any, items: Any, count: int) -> list[Any]:
    if isinstance(items, dict) and len(items.get("enum", ())) >= count:
        return list(items["enum"][:count])
    if isinstance(one, bool) or not isinstance(one, int | float | str):
        raise Unmakeable
    return [one if n == 0 else f"{one}{n + 1}" if isinstance(one, str) else one + n for n in range(count)]


def _text(schema: dict[str, Any]) -> str:
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength")
    if "pattern" in schema:
        found = sample(schema["pattern"], shortest, longest)
        if found is None:
            raise Unmakeable
        return found
    text: str = _BY_FORMAT.get(schema.get("format", ""), "text")
    text += text[-1] * (shortest - len(text))
    return text if longest is None else text[:longest]


def _number(schema: dict[str, Any], *, whole: bool) -> float:
    """Return the first number that fits: a usual one, a limit, the middle between the limits, or one just beside a limit."""
    least, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    most, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    step = schema.get("multipleOf") or (1 if whole else None)
    bounds = [bound for bound in (least, above, most, below) if bound is not None]

    def fits(number: float) -> bool:
        return (
            (least is None or number >= least)
            and (above is None or number > above)
            and (most is None or number <= most)
            and (below is None or number < below)
            and (step is None or math.isclose(number / step, round(number / step), abs_tol=1e-9))
        )

    tried = [1 if whole else 1.5, *bounds]
    if len(bounds) > 1:
        tried.append((min(bounds) + max(bounds)) / 2)
    if step is not None:
        # Try the multiples next to each of those too.
        tried += [multiple * step for one in tried for multiple in (math.ceil(one / step), math.floor(one / step))]
    tried += [bound + (step or 0.5) * side for bound in bounds for side in (1, -1)]
    for number in tried:
        if fits(number):
            return int(number) if whole else number
    raise Unmakeable
