"""Protobuf messages as JSON values. 64-bit integers become numbers, as Triton writes them; protobuf's own JSON has
strings."""

from __future__ import annotations

import base64
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_INT64 = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)


def plain(message: Message, *, wide_as_text: bool = False) -> dict[str, Any]:
    """A message as values by field name. Fields without presence are included with their default when not set.
    `wide_as_text`: 64-bit integers become strings, as in protobuf's own JSON and therefore in TensorFlow Serving's."""
    fields: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            value_field = field.message_type.fields_by_name["value"]
            fields[field.name] = {str(key): _json_value(value_field, value[key], wide_as_text) for key in value}
        elif field.is_repeated:
            fields[field.name] = [_json_value(field, item, wide_as_text) for item in value]
        else:
            fields[field.name] = _json_value(field, value, wide_as_text)
    return fields


def _json_value(field: Any, value: Any, wide_as_text: bool) -> Any:
    if field.message_type is not None:
        if field.message_type.full_name == "google.protobuf.Int64Value":
            return str(value.value) if wide_as_text else value.value
        return plain(value, wide_as_text=wide_as_text)
    if field.enum_type is not None:
        enum_value = field.enum_type.values_by_number.get(value)
        return enum_value.name if enum_value is not None else value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return str(value) if wide_as_text and field.cpp_type in _INT64 else value
