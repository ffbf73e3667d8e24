"""Protocol Buffers classes, made without protoc: a reading, a list of readings, and one that can hold itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

if TYPE_CHECKING:
    from typing import TypeAlias

    _Label: TypeAlias = Field.Label.ValueType
    _Type: TypeAlias = Field.Type.ValueType


def _build() -> list[type[Any]]:
    pool = descriptor_pool.DescriptorPool()
    for library in (struct_pb2, timestamp_pb2):
        pool.AddSerializedFile(library.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(name="test.proto", package="plant", syntax="proto3")
    file.dependency.extend([struct_pb2.DESCRIPTOR.name, timestamp_pb2.DESCRIPTOR.name])
    enum = file.enum_type.add(name="Kind")
    enum.value.add(name="UNKNOWN", number=0)
    enum.value.add(name="METER", number=1)
    one, many = Field.LABEL_OPTIONAL, Field.LABEL_REPEATED

    def field(name: str, number: int, label: _Label, of: _Type, type_name: str | None = None) -> Field:
        return Field(name=name, number=number, label=label, type=of, type_name=type_name)

    def message(name: str, *fields: Field) -> DescriptorProto:
        return file.message_type.add(name=name, field=fields)

    reading = message(
        "Reading",
        field("name", 1, one, Field.TYPE_STRING),
        field("value", 2, one, Field.TYPE_DOUBLE),
        field("raw", 3, one, Field.TYPE_BYTES),
        field("kind", 4, one, Field.TYPE_ENUM, ".plant.Kind"),
        field("counts", 5, many, Field.TYPE_INT64),
        field("limits", 6, many, Field.TYPE_MESSAGE, ".plant.Reading.LimitsEntry"),
        field("at", 7, one, Field.TYPE_MESSAGE, ".google.protobuf.Timestamp"),
        field("battery", 8, one, Field.TYPE_INT32),
        field("more", 9, one, Field.TYPE_MESSAGE, ".google.protobuf.Struct"),
    )
    entry = reading.nested_type.add(name="LimitsEntry")
    entry.options.map_entry = True
    entry.field.append(field("key", 1, one, Field.TYPE_STRING))
    entry.field.append(field("value", 2, one, Field.TYPE_DOUBLE))
    reading.oneof_decl.add(name="_battery")
    reading.field[7].oneof_index = 0
    reading.field[7].proto3_optional = True
    message("Readings", field("readings", 1, many, Field.TYPE_MESSAGE, ".plant.Reading"))
    message(
        "Node",
        field("node", 1, one, Field.TYPE_MESSAGE, ".plant.Node"),
        field("n", 2, one, Field.TYPE_INT32),
    )
    message(
        "Other",
        field("text", 15, one, Field.TYPE_STRING),
        field("number", 16, one, Field.TYPE_INT64),
    )
    pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())

    return [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"plant.{name}"))
        for name in ("Reading", "Readings", "Node", "Other")
    ]


Reading, Readings, Node, Other = _build()
