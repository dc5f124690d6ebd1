"""Turns responses into plain values that can be compared, printed and stored as JSON."""

from __future__ import annotations

import hashlib
import math
import struct
from typing import Any

from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from inferd.tfs.v1.prediction_service_pb2 import SignatureDefMap

LONG = 96  # bytes that are shown in full


def message(answer: Message) -> dict[str, Any]:
    """Every field that is set, unknown ones included. Map entries are sorted, since they have no order on the wire."""
    found: dict[str, Any] = {}
    for field, value in answer.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            keys = sorted(value, key=str)
            found[field.name] = {str(key): _single(value[key]) for key in keys}
        elif _repeated(field):
            found[field.name] = [_single(each) for each in value]
        else:
            found[field.name] = _single(value)
    unknown = [[each.field_number, each.wire_type] for each in UnknownFieldSet(answer)]
    if unknown:
        found["<unknown fields>"] = unknown
    return found


def decoded(answer: bytes, kind: type[Message]) -> Any:
    """A message decoded from bytes."""
    try:
        return message(kind.FromString(answer))
    except DecodeError as error:
        return {"undecodable": str(error), "bytes": blob(answer)}


def blob(data: bytes) -> str:
    """Bytes as text: all of them if there are few, else their number and digest."""
    if len(data) <= LONG:
        return f"hex:{data.hex()}"
    return f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}"


def _single(value: Any) -> Any:
    if isinstance(value, any_pb2.Any) and value.type_url.endswith("SignatureDefMap"):
        # It holds a map, so equal values may have different bytes.
        return {"type_url": value.type_url, "value": decoded(value.value, SignatureDefMap)}
    if isinstance(value, Message):
        return message(value)
    if isinstance(value, bytes):
        return blob(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f"float:{struct.pack('<d', value).hex()}"
    return value


def _repeated(field: Any) -> bool:
    # `label` is deprecated from protobuf 6 on, `is_repeated` is missing before.
    repeated = getattr(field, "is_repeated", None)
    return bool(repeated) if repeated is not None else field.label == field.LABEL_REPEATED
