"""A JSON Schema as a table that people read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from core.asyncapi.page.html import Markup, inline, join, tag

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEEPEST = 6
_BOUNDS = (
    ("minimum", "at least "),
    ("exclusiveMinimum", "more than "),
    ("maximum", "at most "),
    ("exclusiveMaximum", "less than "),
    ("multipleOf", "a multiple of "),
)
_SIZES = (("Length", "characters"), ("Items", "items"), ("Properties", "entries"))


def resolve(schema: Any, components: Mapping[str, Any]) -> Any:
    """Give the model that ``schema`` refers to, or ``schema`` itself."""
    for _ in range(DEEPEST):
        if not isinstance(schema, dict):
            return {}
        if "$ref" in schema:
            schema = components.get(_model(schema))
        elif len(schema.get("allOf", ())) == 1:
            beside = {key: value for key, value in schema.items() if key != "allOf"}
            schema = {**resolve(schema["allOf"][0], components), **beside}
        else:
            return schema
    return {}


def kind(schema: Any) -> Markup:
    """Give the type in words; models are links to their own tables."""
    if not isinstance(schema, dict):
        return Markup("anything")
    if "$ref" in schema:
        name = _model(schema)
        return tag("a", name, href=f"#schema-{name}")
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return join(dict.fromkeys(kind(option) for option in schema[key]), " or ")
    if "allOf" in schema:
        return join((kind(part) for part in schema["allOf"]), " and ")
    named = schema.get("type")
    if named == "array":
        items = schema.get("items", {})
        if isinstance(items, list):
            return join(["list of ", join((kind(item) for item in items), ", ")])
        return join(["list of ", kind(items)])
    if named == "object" and isinstance(schema.get("additionalProperties"), dict):
        return join(["map of ", kind(schema["additionalProperties"])])
    if named is None and ("const" in schema or schema.get("enum")):
        return join([_kind_of(schema.get("const", (schema.get("enum") or [None])[0]))])
    if isinstance(named, list):
        return join(map(str, named), " or ")
    return join([f"{named or 'anything'}", f" ({schema['format']})" if "format" in schema else ""])


def fields(schema: Any, components: Mapping[str, Any]) -> Markup:
    """Give the table of the properties of ``schema``; empty where it has none."""
    rows = [_row(*row, components) for row in _rows(resolve(schema, components), "", 0)]
    if not rows:
        return Markup("")
    head = tag("tr", *(tag("th", title, scope="col") for title in ("Field", "Type", "Description")))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="scroll")


def limits(schema: Any, components: Mapping[str, Any]) -> list[Markup]:
    """Give what ``schema`` allows, each limit in a few words."""
    said: list[Markup] = []
    own = resolve(schema, components)
    options = [option for key in ("anyOf", "oneOf") for option in own.get(key, ()) if option != {"type": "null"}]
    for part in [own, *(options if len(options) == 1 else ())]:
        said += _limits(resolve(part, components), components)
    if own.get("default") is not None:
        said.append(join(["default ", tag("code", _json(own["default"]))]))
    return list(dict.fromkeys(said))


def _limits(schema: dict[str, Any], components: Mapping[str, Any]) -> Iterator[Markup]:
    if "const" in schema:
        yield join(["always ", tag("code", _json(schema["const"]))])
    if schema.get("enum"):
        yield join([join((tag("code", _json(value)) for value in schema["enum"]), " or ")])
    for key, words in _BOUNDS:
        if key in schema:
            yield join([words, tag("code", _json(schema[key]))])
    for key, what in _SIZES:
        least, most = schema.get(f"min{key}"), schema.get(f"max{key}")
        if least is not None or most is not None:
            yield join([_range(least, most, what)])
    if "pattern" in schema:
        yield join(["matches ", tag("code", str(schema["pattern"]))])
    if schema.get("uniqueItems"):
        yield Markup("all different")
    if isinstance(schema.get("items"), dict):
        inner = list(_limits(resolve(schema["items"], components), components))
        if inner:
            yield join(["each ", join(inner, ", ")])


def _range(least: int | None, most: int | None, what: str) -> str:
    if least == most:
        return f"exactly {least} {what}"
    if most is None:
        return f"at least {least} {what}"
    return f"at most {most} {what}" if least is None else f"{least} to {most} {what}"


def _rows(schema: Any, before: str, depth: int) -> Iterator[tuple[str, Any, bool]]:
    """Give name, schema and whether it is required, of each property; of models inside there are links instead."""
    if not isinstance(schema, dict) or depth > DEEPEST:
        return
    for name, part in schema.get("properties", {}).items():
        yield f"{before}{name}", part, name in schema.get("required", ())
        if isinstance(part, dict):
            items = part.get("items")
            yield from _rows(part, f"{before}{name}.", depth + 1)
            yield from _rows(items, f"{before}{name}[].", depth + 1)


def _row(name: str, schema: Any, required: bool, components: Mapping[str, Any]) -> Markup:  # noqa: FBT001
    own = schema if isinstance(schema, dict) else {}
    chips = [tag("span", one, class_="limit") for one in limits(schema, components)]
    marks = [tag("span", "required", class_="required")] if required else []
    if own.get("deprecated"):
        marks.append(tag("span", "deprecated", class_="deprecated"))
    description = str(own.get("description") or "")
    return tag(
        "tr",
        tag("td", tag("code", name, class_="field"), *marks),
        tag("td", kind(schema), class_="type"),
        tag("td", *([tag("p", inline(description))] if description else []), *chips),
    )


def _kind_of(value: Any) -> str:
    return {str: "string", bool: "boolean", int: "integer", float: "number"}.get(type(value), "value")


def _model(schema: dict[str, Any]) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
