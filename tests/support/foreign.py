"""Compares inferd's definitions of foreign protobuf messages with the original ones, field by field."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.descriptor_pb2 import DescriptorProto


def compare_services(ours: Any, theirs: Any, *, only_ours: Container[str] = (), as_int: Container[str] = ()) -> int:
    """Compares every message that the methods use. Returns the number of messages. Raises AssertionError at the first
    difference.

    `only_ours`: fields that only inferd has; `as_int`: fields that are an enum in the original and an int32 in inferd.
    """
    seen: set[str] = set()
    missing = set(theirs.methods_by_name) - set(ours.methods_by_name)
    assert not missing, missing
    for method in ours.methods:
        other = theirs.methods_by_name[method.name]
        assert (method.client_streaming, method.server_streaming) == (other.client_streaming, other.server_streaming)
        compare_messages(method.input_type, other.input_type, seen, only_ours, as_int)
        compare_messages(method.output_type, other.output_type, seen, only_ours, as_int)
    return len(seen)


def compare_messages(
    ours: Any, theirs: Any, seen: set[str], only_ours: Container[str] = (), as_int: Container[str] = ()
) -> None:
    """Compares a message and the messages of its fields. Fields that inferd leaves out must be reserved."""
    if ours.full_name in seen:
        return
    seen.add(ours.full_name)
    proto = DescriptorProto()
    ours.CopyToProto(proto)
    numbers = {field.number: field for field in theirs.fields}
    for field in ours.fields:
        where = f"{ours.full_name}.{field.name}"
        if where in only_ours:
            continue
        other = numbers.pop(field.number, None)
        assert other is not None, f"{where}: there is no number {field.number} there"
        assert field.name == other.name, f"{where} is called {other.name} there"
        assert field.is_repeated == other.is_repeated, where
        assert (field.containing_oneof is None) == (other.containing_oneof is None), where
        if field.type != other.type:
            assert where in as_int, f"{where}: type {other.type} there"
            assert {field.type, other.type} == {Field.TYPE_INT32, Field.TYPE_ENUM}, where
        elif field.type == Field.TYPE_ENUM:
            known = {value.number: value.name for value in other.enum_type.values}
            for value in field.enum_type.values:
                assert known.get(value.number) == value.name, f"{where}: {value.name}"
        elif field.type == Field.TYPE_MESSAGE and not field.message_type.full_name.startswith("google."):
            compare_messages(field.message_type, other.message_type, seen, only_ours, as_int)
    for number, other in numbers.items():
        reserved = any(span.start <= number < span.end for span in proto.reserved_range)
        assert reserved, f"{ours.full_name}: {other.name} = {number} is neither there nor reserved"
