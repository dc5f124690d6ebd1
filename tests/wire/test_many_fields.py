"""Messages with very many small fields are refused without reading every field by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from inferd.wire import native, oip, tfs
from inferd.wire.reader import field, varint
from inferd.wire.tensors import MAX_RANK, MOST_FIELDS, MOST_PARAMETERS, WireError

MANY = 2_000_000  # to read so many fields by hand would take some seconds
INPUT, OUTPUT = b"\x0a\x01x", b"\x0a\x01y"
RANK = b"\x01" * 200_000


def _oip_parameters(count: int) -> bytes:
    return b"".join(field(0x12, field(0x0A, b"k%d" % n) + b"\x12\x02\x10\x01") for n in range(count))


@pytest.mark.parametrize(
    ("decode", "message", "text"),
    [
        (native.decode_request, b"\x12\x00" * MANY, f"at most {MOST_FIELDS} inputs, got {MANY}"),
        (native.decode_request, b"\x1a\x00" * MANY, f"at most {MOST_FIELDS} outputs, got {MANY}"),
        (
            native.decode_request,
            field(0x12, INPUT + b"\x10\x0b" + field(0x1A, RANK)),
            f"at most {MAX_RANK} dimensions, got {len(RANK)}",
        ),
        (oip.decode_request, b"\x2a\x00" * MANY, f"at most {MOST_FIELDS} inputs, got {MANY}"),
        (oip.decode_request, b"\x32\x00" * MANY, f"at most {MOST_FIELDS} outputs, got {MANY}"),
        (
            oip.decode_request,
            field(0x32, OUTPUT + _oip_parameters(MOST_PARAMETERS + 1)),
            f"at most {MOST_PARAMETERS} parameters, got {MOST_PARAMETERS + 1}",
        ),
        (
            oip.decode_request,
            field(0x2A, INPUT + b"\x12\x04FP32" + field(0x1A, RANK)),
            f"at most {MAX_RANK} dimensions, got {len(RANK)}",
        ),
        (tfs.decode_request, b"\x1a\x00" * MANY, f"at most {MOST_FIELDS} outputs, got {MANY}"),
        (
            tfs.decode_request,
            b"".join(field(0x12, b"\x0a" + varint(len(b"%d" % n)) + b"%d" % n) for n in range(MOST_FIELDS + 1)),
            f"at most {MOST_FIELDS} inputs, got {MOST_FIELDS + 1}",
        ),
        (
            tfs.decode_request,
            field(0x12, INPUT + field(0x12, b"\x08\x01" + field(0x12, b"\x12\x00" * 100_000))),
            f"at most {MAX_RANK} dimensions, got 100000",
        ),
    ],
)
def test_messages_with_too_many_fields_are_refused(decode: Callable[[bytes], Any], message: bytes, text: str) -> None:
    with pytest.raises(WireError, match=text):
        decode(message)


def test_recogniser_and_generated_class_have_the_same_bounds() -> None:
    outputs = b"".join(b"\x1a\x02y%c" % (65 + n % 26) for n in range(MOST_FIELDS))
    assert len(native.decode_request(outputs).outputs) == MOST_FIELDS
    parameters = field(0x32, OUTPUT + _oip_parameters(MOST_PARAMETERS))
    assert len(oip.decode_request(parameters).outputs[0].parameters) == MOST_PARAMETERS
