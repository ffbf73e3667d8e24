"""Protocol Buffers classes, made without protoc: a reading, a list of readings, and one that can hold itself."""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2, timestamp_pb2


def _build():
    kind = descriptor_pb2.FieldDescriptorProto
    pool = descriptor_pool.DescriptorPool()
    for library in (struct_pb2, timestamp_pb2):
        pool.AddSerializedFile(library.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(name="test.proto", package="plant", syntax="proto3")
    file.dependency.extend([struct_pb2.DESCRIPTOR.name, timestamp_pb2.DESCRIPTOR.name])
    enum = file.enum_type.add(name="Kind")
    enum.value.add(name="UNKNOWN", number=0)
    enum.value.add(name="METER", number=1)
    one, many = kind.LABEL_OPTIONAL, kind.LABEL_REPEATED

    def message(name, *fields):
        made = file.message_type.add(name=name)
        for field, number, label, of, *type_name in fields:
            made.field.add(name=field, number=number, label=label, type=of, type_name=(type_name or [None])[0])
        return made

    reading = message(
        "Reading",
        ("name", 1, one, kind.TYPE_STRING),
        ("value", 2, one, kind.TYPE_DOUBLE),
        ("raw", 3, one, kind.TYPE_BYTES),
        ("kind", 4, one, kind.TYPE_ENUM, ".plant.Kind"),
        ("counts", 5, many, kind.TYPE_INT64),
        ("limits", 6, many, kind.TYPE_MESSAGE, ".plant.Reading.LimitsEntry"),
        ("at", 7, one, kind.TYPE_MESSAGE, ".google.protobuf.Timestamp"),
        ("battery", 8, one, kind.TYPE_INT32),
        ("more", 9, one, kind.TYPE_MESSAGE, ".google.protobuf.Struct"),
    )
    entry = reading.nested_type.add(name="LimitsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=one, type=kind.TYPE_STRING)
    entry.field.add(name="value", number=2, label=one, type=kind.TYPE_DOUBLE)
    reading.oneof_decl.add(name="_battery")
    reading.field[7].oneof_index = 0
    reading.field[7].proto3_optional = True
    message("Readings", ("readings", 1, many, kind.TYPE_MESSAGE, ".plant.Reading"))
    message("Node", ("node", 1, one, kind.TYPE_MESSAGE, ".plant.Node"), ("n", 2, one, kind.TYPE_INT32))
    message("Other", ("text", 15, one, kind.TYPE_STRING), ("number", 16, one, kind.TYPE_INT64))
    pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())

    return [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"plant.{name}"))
        for name in ("Reading", "Readings", "Node", "Other")
    ]


Reading, Readings, Node, Other = _build()
