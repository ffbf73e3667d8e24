"""Protocol Buffers: the codec of one message class, and its messages as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from importlib import import_module
from typing import Any

from core.codecs.codec import begin
from core.codecs.limits import DEFAULT, too_deep
from core.codecs.plain import plain
from core.errors import PayloadError, RouteError, one_line


class Protobuf:
    """The codec of ``message_class``, a class that protoc generated. The payload is a message of the class.

    A body whose fields are all unknown to the class belongs to another class, and is refused. Messages of the class are
    encoded, and so are mappings, and what ``core.codecs.plain`` makes one.
    """

    content_type = "application/x-protobuf"

    def __init__(self, message_class: Any) -> None:
        self.message_class: Any = message_class
        try:
            self._message: Any = import_module("google.protobuf.message").Message
            self._unknown: Any = import_module("google.protobuf.unknown_fields").UnknownFieldSet
        except ImportError:
            raise RouteError(
                "codec=protobuf(...) needs the package protobuf, which is not installed: pip install 'protobuf>=5,<8'"
            ) from None
        if not (isinstance(message_class, type) and issubclass(message_class, self._message)):
            raise RouteError(f"codec=protobuf({message_class!r}) needs a message class that protoc generated")
        self._name: str = self.message_class.DESCRIPTOR.full_name
        self._depth = _depth_of(self.message_class.DESCRIPTOR)

    def decode(self, body: bytes) -> Any:
        """Return the message that ``body`` holds. Raise PayloadError."""
        return self.decode_within(body, DEFAULT.depth)

    def decode_within(self, body: bytes, depth: int) -> Any:
        """Return the message, within which messages are nested at most ``depth`` levels deep. Raise PayloadError."""
        message = self.message_class()
        try:
            message.ParseFromString(body)
        except Exception as error:  # noqa: BLE001 - the library has several implementations, with errors of their own
            why = one_line(error, name=False).partition(": ")[2] or one_line(error, name=False)
            raise PayloadError(f"the body is not a {self._name}: {why}. It begins {begin(body)}") from None
        if not message.IsInitialized():
            missing = ", ".join(message.FindInitializationErrors()[:10])
            raise PayloadError(f"the body is not a {self._name}: it lacks the required fields {missing}"[:300])
        if body and not message.ListFields():
            unknown = self._unknown(message)
            if len(unknown):
                numbers = ", ".join(str(number) for number in sorted({field.field_number for field in unknown})[:10])
                raise PayloadError(
                    f"the body is not a {self._name}: it has none of its fields, but unknown ones (numbers {numbers})"
                )
        # A level takes two bytes at least.
        if (self._depth is None or self._depth > depth) and len(body) > 2 * (depth - 1):
            _check_depth(message, depth)
        return message

    def encode(self, value: Any) -> bytes:
        """Return ``value``, a message of the class or the fields of one, in the wire format.

        Raise PayloadError for what is neither.
        """
        try:
            if not isinstance(value, self.message_class):
                if isinstance(value, self._message):
                    raise TypeError(f"it is a {value.DESCRIPTOR.full_name}")  # noqa: TRY301 - told like the others
                value = self.message_class(**(value if isinstance(value, Mapping) else plain(value)))
            return bytes(value.SerializeToString())
        except Exception as error:  # noqa: BLE001 - see above
            raise PayloadError(
                f"{type(value).__name__} cannot be written as {self._name}: {one_line(error, name=False)}"
            ) from None


def protobuf(message_class: Any) -> Protobuf:
    """Return the codec of ``message_class``, a class that protoc generated. Raise RouteError for anything else."""
    return Protobuf(message_class)


def to_dict(message: Any) -> Any:
    """Return ``message`` as plain values, under the names of its fields.

    - bytes stay bytes.
    - Enumerations are numbers.
    - A Timestamp is an aware datetime in UTC.
    - A Duration is a timedelta.
    - Struct, Value, ListValue and the wrappers are what they hold.

    A field that is absent is left out, where its absence can be seen. Raise PayloadError for a time that does not exist.
    """
    name = message.DESCRIPTOR.full_name
    if name.startswith("google.protobuf."):
        try:
            return _well_known(message, name.removeprefix("google.protobuf."))
        except (ValueError, OverflowError) as error:
            raise PayloadError(f"a {name} cannot be read: {one_line(error, name=False)}") from None
    return _fields(message)


def _fields(message: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if _repeated(field):
            value = getattr(message, field.name)
            if field.message_type is None:
                found[field.name] = list(value)
            elif field.message_type.GetOptions().map_entry:
                of_messages = field.message_type.fields_by_name["value"].message_type is not None
                found[field.name] = {key: to_dict(value[key]) if of_messages else value[key] for key in value}
            else:
                found[field.name] = [to_dict(item) for item in value]
        elif not field.has_presence or message.HasField(field.name):
            value = getattr(message, field.name)
            found[field.name] = value if field.message_type is None else to_dict(value)
    return found


def _well_known(message: Any, name: str) -> Any:
    if name == "Timestamp":
        return message.ToDatetime(tzinfo=UTC)
    if name == "Duration":
        return message.ToTimedelta()
    if name == "Struct":
        return {key: to_dict(value) for key, value in message.fields.items()}
    if name == "ListValue":
        return [to_dict(value) for value in message.values]
    if name == "Value":
        kind = message.WhichOneof("kind")
        if kind in {None, "null_value"}:
            return None
        value = getattr(message, kind)
        return to_dict(value) if kind in {"struct_value", "list_value"} else value
    if name.endswith("Value") and [field.name for field in message.DESCRIPTOR.fields] == ["value"]:
        return message.value
    return _fields(message)


def _repeated(field: Any) -> bool:
    # Version 6 of the library brought is_repeated. Version 7 has no label any more.
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)


def _depth_of(descriptor: Any, above: tuple[str, ...] = ()) -> int | None:
    """Return how deeply messages of this type can be nested at most, or None where they can hold themselves."""
    if descriptor.full_name in above:
        return None
    inside = [
        _depth_of(field.message_type, (*above, descriptor.full_name))
        for field in descriptor.fields
        if field.message_type is not None
    ]
    return None if None in inside else 1 + max((depth for depth in inside if depth is not None), default=0)


def _check_depth(message: Any, depth: int) -> None:
    level = [message]
    for _ in range(depth):
        level = [inner for outer in level for inner in _messages(outer)]
        if not level:
            return
    raise too_deep(depth)


def _messages(message: Any) -> list[Any]:
    found = []
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if not _repeated(field):
            found.append(value)
        elif not field.message_type.GetOptions().map_entry:
            found.extend(value)
        elif field.message_type.fields_by_name["value"].message_type is not None:
            found.extend(value[key] for key in value)
    return found
