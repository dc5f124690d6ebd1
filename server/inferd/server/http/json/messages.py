"""Protobuf messages as JSON values, with whole numbers as numbers: what Triton writes, where protobuf's own JSON has
strings for 64 bits."""

from __future__ import annotations

import base64
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_WIDE = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)


def plain(message: Message, *, wide_as_text: bool = False) -> dict[str, Any]:
    """A message by field name, fields that are not set included where they have a default. `wide_as_text`: 64-bit
    numbers are strings, as in protobuf's own JSON and so in TensorFlow Serving's."""
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            of = field.message_type.fields_by_name["value"]
            found[field.name] = {str(key): _one(of, value[key], wide_as_text) for key in value}
        elif field.is_repeated:
            found[field.name] = [_one(field, item, wide_as_text) for item in value]
        else:
            found[field.name] = _one(field, value, wide_as_text)
    return found


def _one(field: Any, value: Any, wide_as_text: bool) -> Any:
    if field.message_type is not None:
        if field.message_type.full_name == "google.protobuf.Int64Value":
            return str(value.value) if wide_as_text else value.value
        return plain(value, wide_as_text=wide_as_text)
    if field.enum_type is not None:
        named = field.enum_type.values_by_number.get(value)
        return named.name if named is not None else value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return str(value) if wide_as_text and field.cpp_type in _WIDE else value
