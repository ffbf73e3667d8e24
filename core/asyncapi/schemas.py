"""The JSON Schemas of payloads, in draft 07 as AsyncAPI 3.0 requires, with their models among the components."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PydanticUserError, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import to_jsonable_python

from core.asyncapi.schema_example import Unmakeable, examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

    Mode = Literal["validation", "serialization"]

PREFIX = "#/components/schemas/"
_MAPS = {"properties", "patternProperties"}
_LISTS = {"allOf", "anyOf", "oneOf"}
_SINGLE = {"items", "additionalItems", "additionalProperties", "propertyNames", "contains", "not"}


class _Generator(GenerateJsonSchema):
    """Names the fields of replies by their names, as they are written. Leaves out titles that are made of names."""

    def generate_inner(self, schema: CoreSchema) -> JsonSchemaValue:
        self.by_alias = self.mode == "validation"
        return super().generate_inner(schema)

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


class Schemas:
    """The schemas of incoming and outgoing payloads, by the keys of their types.

    ``components`` are the models that the schemas refer to, by name. Models with the same name are told apart by their
    modules. A model that is written differently from how it is read, such as one with computed fields, is there twice, as
    "-Input" and "-Output". A type without a JSON Schema in pydantic is left out.
    """

    def __init__(self, incoming: Mapping[str, Any], outgoing: Mapping[str, Any]) -> None:
        self._adapters = _adapters(incoming, "validation")
        written = _adapters(outgoing, "serialization")
        inputs: list[tuple[tuple[str, Mode], Mode, TypeAdapter[Any]]] = [
            *(((key, "validation"), "validation", adapter) for key, adapter in self._adapters.items()),
            *(((key, "serialization"), _written_as(adapter), adapter) for key, adapter in written.items()),
        ]
        found, rest = TypeAdapter.json_schemas(inputs, ref_template=PREFIX + "{model}", schema_generator=_Generator)
        models = rest.get("$defs", {})
        names = _short(models)
        self._found = {key: _clean(schema, names) for (key, _), schema in found.items()}
        self.components: dict[str, Any] = {
            names[name]: _clean(models[name], names) for name in sorted(models, key=lambda name: names[name])
        }

    def incoming(self, key: str) -> JsonSchemaValue | None:
        """Return the schema of the incoming payload ``key``, or None if it has none."""
        return self._found.get((key, "validation"))

    def outgoing(self, key: str) -> JsonSchemaValue | None:
        """Return the schema of the outgoing payload ``key``, or None if it has none."""
        return self._found.get((key, "serialization"))

    def incoming_examples(self, key: str) -> list[Any]:
        """Return examples of the incoming payload ``key``.

        These are the author's own, or else a made one, if there is one that the type accepts.
        """
        schema = self.incoming(key)
        return [] if schema is None else self._examples(schema, self._adapters[key].validate_json)

    def outgoing_examples(self, key: str) -> list[Any]:
        """Return examples of the outgoing payload ``key``: the author's own, or else a made one, if there is one."""
        schema = self.outgoing(key)
        return [] if schema is None else self._examples(schema, None)

    def _examples(self, schema: JsonSchemaValue, check: Callable[[str], Any] | None) -> list[Any]:
        try:
            found, written = examples(schema, self.components)
            if check is not None and not written:
                check(json.dumps(found[0]))
        except Unmakeable:
            return []
        except Exception:  # noqa: BLE001 - a validator of the user may refuse the made example with any exception
            return []
        return found


def _adapters(types: Mapping[str, Any], mode: Mode) -> dict[str, TypeAdapter[Any]]:
    """Return the adapters of the types that have a JSON Schema."""
    adapters = {}
    for key, one in types.items():
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(one)
            adapter.json_schema(mode=mode)
        except (PydanticUserError, TypeError, NameError):
            continue
        adapters[key] = adapter
    return adapters


def _written_as(adapter: TypeAdapter[Any]) -> Mode:
    """Return "validation" for a type that is written as it is read, so that its models are among the components once."""
    try:
        read = adapter.json_schema(mode="validation", schema_generator=_Generator)
    except PydanticUserError:
        return "serialization"
    written = adapter.json_schema(mode="serialization", schema_generator=_Generator)
    return "validation" if read == written else "serialization"


def _short(names: Iterable[str]) -> dict[str, str]:
    """Return a short name for each name, such as Reading for ``app__models__meter__Reading``.

    A short name has as much of its module as is needed to tell it from the others.
    """
    parts = {name: [part for part in name.split("__") if part] for name in names}
    found: dict[str, str] = {}
    for name, own in parts.items():
        for count in range(1, len(own) + 1):
            short = ".".join(own[-count:])
            if not any(other is not own and ".".join(other[-count:]) == short for other in parts.values()):
                found[name] = short
                break
        else:
            found[name] = name
    return found


def _clean(schema: JsonSchemaValue, names: Mapping[str, str]) -> Any:
    return draft_07(to_jsonable_python(schema, inf_nan_mode="null", serialize_unknown=True), names)


def draft_07(schema: Any, names: Mapping[str, str]) -> Any:
    """Return ``schema`` in draft 07, which AsyncAPI 3.0 builds on. Pydantic writes draft 2020-12.

    ``names`` are the new names of the models. ``discriminator`` becomes an extension, because AsyncAPI's own takes no
    mapping. The constants in the models say the same as the mapping.
    """
    if not isinstance(schema, dict):
        return schema
    given = dict(schema)
    if "prefixItems" in given:
        # Before draft 2020-12, the list was named `items`, and what follows it `additionalItems`.
        if "items" in given:
            given["additionalItems"] = given["items"]
        given["items"] = given.pop("prefixItems")
    result: dict[str, Any] = {}
    for key, value in given.items():
        if key in _MAPS:
            result[key] = {name: draft_07(one, names) for name, one in value.items()}
        elif key in _LISTS or (key in _SINGLE and isinstance(value, list)):
            result[key] = [draft_07(one, names) for one in value]
        elif key in _SINGLE:
            result[key] = draft_07(value, names)
        elif key == "$ref":
            name = value.removeprefix(PREFIX)
            result[key] = PREFIX + names.get(name, name)
        elif key == "discriminator" and isinstance(value, dict):
            result["x-routemq-discriminator"] = value.get("propertyName", "")
        elif key == "examples":
            result[key] = value if isinstance(value, list) else [value]
        else:
            result[key] = value
    if "$ref" in result and len(result) > 1:
        # Draft 07 ignores whatever stands beside a reference.
        return {"allOf": [{"$ref": result.pop("$ref")}], **result}
    return result
