"""Schemas: what a payload must be, and the report on one that is not."""

from __future__ import annotations

from typing import Annotated, Any, get_origin

from pydantic import FailFast, TypeAdapter, ValidationError

from core.codecs.json import JSON, has_many_digits, may_overflow
from core.errors import PayloadError, RouteError, SchemaError, one_line

MOST_LINES = 50
MOST_COUNTED = 1_000
"""Faults that are looked at one by one; each costs the more the more there are."""
LARGE = 65_536
"""Bytes of a body from which on a list is read until its first bad item only: millions of faults would take seconds."""
MOST_SHOWN = 60
MOST_PATH = 120
MOST_WANTED = 150

_WANTED = {
    **dict.fromkeys(("model_type", "dataclass_type", "dict_type", "mapping_type", "model_attributes_type"), "an object"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"), "a list"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "text",
    "none_required": "null",
    "extra_forbidden": "no field of this name",
}
_EXPECTED, _RAISED = "Input should be ", "Value error, "


class Schema:
    """Checks payloads against a type that pydantic's TypeAdapter takes. Raises RouteError where it takes it not."""

    def __init__(self, schema: Any) -> None:
        self._adapter = _adapter(schema)
        self._first = _adapter(Annotated[schema, FailFast()]) if get_origin(schema) in {list, set, frozenset} else None

    def read_json(self, body: bytes) -> Any:
        """Give the object that a JSON text holds, checked from the bytes in one pass. Raises PayloadError."""
        adapter = self._adapter
        if len(body) > LARGE and self._first is not None:
            adapter = self._first
        if may_overflow(body):
            # What JSON does not allow is refused here; names and texts may hold such words.
            value = JSON.decode(body)
            if has_many_digits(body):
                # From the bytes a float would become infinite.
                return self.check(value)
        try:
            return adapter.validate_json(body)
        except ValidationError as error:
            failed = error
        if failed.error_count() == 1 and failed.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid":
            # The decoder says better what is wrong; pydantic's reader has a limit of its own for nesting.
            JSON.decode(body)
            raise PayloadError("the body is nested too deeply for a schema") from None
        raise self._refusal(failed, body) from None

    def check(self, value: Any) -> Any:
        """Give the object that a decoded ``value`` stands for. Raises SchemaError."""
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            failed = error
        raise self._refusal(failed) from None

    def _refusal(self, failed: ValidationError, body: bytes | None = None) -> SchemaError:
        faults = failed.error_count()
        if faults > MOST_COUNTED:
            first = self._first_fault(body)
            return SchemaError([f"{faults:,} faults, too many to list" + (", the first of them:" if first else ""), *first])
        return SchemaError(explain(failed))

    def _first_fault(self, body: bytes | None) -> list[str]:
        if self._first is not None and body is not None:
            try:
                self._first.validate_json(body)
            except ValidationError as error:
                return explain(error)
        return []


def _adapter(schema: Any) -> TypeAdapter[Any]:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(schema)
        if not adapter.pydantic_complete:
            adapter.rebuild(raise_errors=True)
    except Exception as error:
        name = schema.__qualname__ if isinstance(schema, type) and get_origin(schema) is None else str(schema)
        why = one_line(error).partition(" For further information")[0]
        raise RouteError(f"schema={name[:100]}: pydantic cannot make a schema of it: {why}") from error
    return adapter


def explain(failed: ValidationError) -> list[str]:
    """Give a line for each fault, at most 50: where, what was there, and what was expected."""
    faults = failed.errors(include_url=False)
    lines = [_line(fault) for fault in faults[:MOST_LINES]]
    if len(faults) > MOST_LINES:
        lines.append(f"and {len(faults) - MOST_LINES:,} more")
    return lines


def _line(fault: Any) -> str:
    path = ".".join(_part(part) for part in fault["loc"])
    where = path if len(path) <= MOST_PATH else path[: MOST_PATH - 3] + "..."
    if fault["type"] == "missing":
        return f"{where}: missing, expected this field; there was {shown(fault['input'])}"
    return f"{where or 'the payload'}: got {shown(fault['input'])}{_wanted(fault)}"


def _wanted(fault: Any) -> str:
    known = _WANTED.get(fault["type"])
    if known is not None:
        return f", expected {known}"
    said = " ".join(fault["msg"].split())
    wanted = said.removeprefix(_EXPECTED)
    text = f", expected {wanted}" if wanted != said else f"; {said.removeprefix(_RAISED)}"
    return text if len(text) <= MOST_WANTED else text[: MOST_WANTED - 3] + "..."


def _part(part: int | str) -> str:
    if isinstance(part, int):
        return str(part)
    cut = part if len(part) <= MOST_SHOWN else part[: MOST_SHOWN - 3] + "..."
    # A key of a map comes from the sender.
    return cut if cut.isprintable() else ascii(cut)


def shown(value: Any) -> str:
    """Give ``value`` for people, in at most 60 characters on one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        text = repr(value[:MOST_SHOWN])
    elif isinstance(value, bytes):
        text = f"{len(value):,} bytes"
    elif isinstance(value, int):
        text = str(value) if value.bit_length() < 200 else f"a number of about {value.bit_length() * 0.30103:,.0f} digits"
    elif isinstance(value, dict):
        text = f"an object with {', '.join(_names(value))}" if value else "an empty object"
    elif isinstance(value, list | tuple | set | frozenset):
        text = f"a list of {len(value):,}" if value else "an empty list"
    elif isinstance(value, float):
        text = repr(value)
    else:
        text = " ".join(str(value)[:200].split()) or type(value).__name__
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 3] + "..."


def _names(value: dict[Any, Any]) -> list[str]:
    return [_part(str(name)[: 2 * MOST_SHOWN]) for _, name in zip(range(10), value, strict=False)]
