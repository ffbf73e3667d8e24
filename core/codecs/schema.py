"""Schemas: what a payload must be, and the report on a payload that is something else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaValidator

from core.codecs.json import JSON, has_many_digits, may_overflow
from core.errors import PayloadError, RouteError, SchemaError, one_line

MAX_LINES = 50
"""Faults that a report lists."""
MAX_COUNTED = 1_000
"""Faults that are looked at one by one. The more there are, the more each of them costs."""
LARGE = 65_536
"""Bytes of a body beyond which a list is read until its first bad item only, since millions of faults take seconds."""
MAX_SHOWN = 60
"""Characters of a value in a report."""
MAX_PATH = 120
"""Characters of the path to a value in a report."""
MAX_WANTED = 150
"""Characters of what was expected in a report."""

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
_LISTS = frozenset({"list", "set", "frozenset", "tuple"})
_NOT_SCHEMAS = frozenset({"default", "expected", "metadata", "serialization"})
"""Parts of a core schema that are values, or of no use here."""
_EXPECTED, _RAISED = "Input should be ", "Value error, "


class Schema:
    """A check of payloads against a type that pydantic's TypeAdapter takes. Raise RouteError for any other type."""

    def __init__(self, schema: Any) -> None:
        self._adapter = _adapter(schema)

    @cached_property
    def _quick(self) -> SchemaValidator | TypeAdapter[Any]:
        """Return a validator of the same type for which each list ends at its first bad item."""
        schema = _ending_early(self._adapter.core_schema)
        # The validators that models have already would not end there. An older pydantic has no such option.
        tries: tuple[dict[str, Any], ...] = ({"_use_prebuilt": False}, {})
        for options in tries:
            with suppress(Exception):
                return SchemaValidator(schema, **options)
        return self._adapter

    def read_json(self, body: bytes) -> Any:
        """Return the object that a JSON text holds, checked from the bytes in one pass. Raise PayloadError."""
        if may_overflow(body):
            # What JSON does not allow is refused here. Names and texts may hold such words.
            value = JSON.decode(body)
            if has_many_digits(body):
                # From the bytes a float would become infinite.
                return self.check(value, len(body))
        try:
            return (self._quick if len(body) > LARGE else self._adapter).validate_json(body)
        except ValidationError as error:
            failed = error
        if failed.error_count() == 1 and failed.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid":
            # The decoder says better what is wrong. pydantic's reader has a limit of its own for nesting.
            JSON.decode(body)
            if "recursion limit" in str(failed):
                raise PayloadError("the body is nested too deeply for a schema: more than 200 lists and maps") from None
        if failed.error_count() > MAX_COUNTED:
            raise _refusal(failed, partial(self._quick.validate_json, body)) from None
        raise _refusal(failed) from None

    def check(self, value: Any, size: int) -> Any:
        """Return the object that ``value`` stands for, which was decoded from ``size`` bytes. Raise SchemaError."""
        try:
            return (self._quick if size > LARGE else self._adapter).validate_python(value)
        except ValidationError as error:
            failed = error
        if failed.error_count() > MAX_COUNTED:
            raise _refusal(failed, partial(self._quick.validate_python, value)) from None
        raise _refusal(failed) from None


def _ending_early(schema: Any) -> Any:
    """Return a copy of a core schema in which each list ends at its first bad item."""
    if isinstance(schema, list):
        return [_ending_early(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {name: part if name in _NOT_SCHEMAS else _ending_early(part) for name, part in schema.items()}
    return copy | {"fail_fast": True} if copy.get("type") in _LISTS else copy


def _refusal(failed: ValidationError, again: Callable[[], Any] | None = None) -> SchemaError:
    """Return the error for what pydantic found.

    Where it found too many faults to list, ``again`` validates once more, up to the first bad item of each list.
    """
    if again is None:
        return SchemaError(explain(failed))
    faults = failed.error_count()
    try:
        again()
    except ValidationError as error:
        if error.error_count() <= MAX_COUNTED:
            return SchemaError([f"{faults:,} faults are too many to list. The first of them:", *explain(error)])
    return SchemaError([f"{faults:,} faults are too many to list"])


def _adapter(schema: Any) -> TypeAdapter[Any]:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(schema)
        if not adapter.pydantic_complete:
            adapter.rebuild(raise_errors=True)
    except Exception as error:
        name = schema.__qualname__ if isinstance(schema, type) and get_origin(schema) is None else str(schema)
        why = one_line(error).partition(" For further information")[0]
        raise RouteError(f"schema={name[:100]}: pydantic cannot make a schema of this type: {why}") from error
    return adapter


def explain(failed: ValidationError) -> list[str]:
    """Return a line for each fault, at most 50: where it is, what was there, and what was expected."""
    faults = failed.errors(include_url=False)
    lines = [_line(fault) for fault in faults[:MAX_LINES]]
    if len(faults) > MAX_LINES:
        lines.append(f"and {len(faults) - MAX_LINES:,} more")
    return lines


def _line(fault: Any) -> str:
    path = ".".join(_part(part) for part in fault["loc"])
    where = path if len(path) <= MAX_PATH else path[: MAX_PATH - 3] + "..."
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
    return text if len(text) <= MAX_WANTED else text[: MAX_WANTED - 3] + "..."


def _part(part: int | str) -> str:
    if isinstance(part, int):
        return str(part)
    cut = part if len(part) <= MAX_SHOWN else part[: MAX_SHOWN - 3] + "..."
    # A key of a map comes from the sender.
    return cut if cut.isprintable() else ascii(cut)


def shown(value: Any) -> str:
    """Return ``value`` for people, in at most 60 characters on one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        text = repr(value[:MAX_SHOWN])
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
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def _names(value: dict[Any, Any]) -> list[str]:
    return [_part(str(name)[: 2 * MAX_SHOWN]) for _, name in zip(range(10), value, strict=False)]
