"""What a JSON Schema allows, in a few words for each limit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from core.asyncapi.page.words import Words, code, join, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.asyncapi.page.references import References

_BOUNDS = (
    ("minimum", "at least "),
    ("exclusiveMinimum", "more than "),
    ("maximum", "at most "),
    ("exclusiveMaximum", "less than "),
    ("multipleOf", "a multiple of "),
)
_SIZES = (("Length", "character", "characters"), ("Items", "item", "items"), ("Properties", "entry", "entries"))


def limits(schema: Any, references: References) -> list[Words]:
    """Return what ``schema`` allows, and its default. A type or null has the limits of the type."""
    said: list[Words] = []
    own = references.resolve(schema)
    options = [option for key in ("anyOf", "oneOf") for option in own.get(key, ()) if option != {"type": "null"}]
    for part in [own, *(options if len(options) == 1 else ())]:
        said += _limits(references.resolve(part), references)
    if own.get("default") is not None:
        said.append(join(["default ", _json(own["default"])]))
    return list(dict.fromkeys(said))


def _limits(schema: dict[str, Any], references: References) -> Iterator[Words]:
    if "const" in schema:
        yield join(["always ", _json(schema["const"])])
    if schema.get("enum"):
        yield join((_json(value) for value in schema["enum"]), " or ")
    for key, words in _BOUNDS:
        if key in schema:
            yield join([words, _json(schema[key])])
    for key, one, several in _SIZES:
        least, most = schema.get(f"min{key}"), schema.get(f"max{key}")
        if least is not None or most is not None:
            last = least if most is None else most
            yield plain(f"{_range(least, most)} {one if last == 1 else several}")
    if "pattern" in schema:
        yield join(["matches ", code(str(schema["pattern"]))])
    if schema.get("uniqueItems"):
        yield plain("all different")
    if isinstance(schema.get("items"), dict):
        inner = list(_limits(references.resolve(schema["items"]), references))
        if inner:
            yield join(["each ", join(inner, ", ")])


def _range(least: int | None, most: int | None) -> str:
    if least == most:
        return f"exactly {least}"
    if most is None:
        return f"at least {least}"
    return f"at most {most}" if least is None else f"{least} to {most}"


def _json(value: Any) -> Words:
    return code(json.dumps(value, ensure_ascii=False))
