"""Composing responses of the Open Inference Protocol: raw contents always, one entry an output in the same order.

tritonclient reads nothing else. Fields are written in the order of their numbers. All functions are thread-safe; the
caches are bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from inferd.wire.dtypes import DType
from inferd.wire.reader import field, varint
from inferd.wire.tensors import Array, Buffer, encodable_dtype, raw

_CACHED = 1024


def _final(value: int) -> bytes:
    entry = field(0x0A, b"triton_final_response") + field(0x12, bytes((0x08, value)))
    return field(0x22, entry)


_FINAL = {None: b"", False: _final(0), True: _final(1)}


def encode_response(
    model_name: str,
    version: int,
    outputs: Mapping[str, Array],
    request_id: str = "",
    *,
    final: bool | None = None,
) -> bytes:
    """A ModelInferResponse. `final` is the parameter triton_final_response of a stream's answer. Raises WireError for
    what cannot be sent."""
    parts: list[Buffer] = [_head(model_name, version)]
    if request_id:
        parts.append(field(0x1A, request_id.encode()))
    parts.append(_FINAL[final])
    raws: list[Buffer] = []
    for name, array in outputs.items():
        dtype = encodable_dtype(name, array)
        parts.append(_output(name, dtype, array.shape))
        data = raw(name, array, dtype)
        raws.append(b"\x32" + varint(len(data)))
        raws.append(data)
    parts += raws
    return b"".join(parts)


def encode_stream_response(response: bytes) -> bytes:
    """A ModelStreamInferResponse around an encoded ModelInferResponse."""
    return b"".join((b"\x12", varint(len(response)), response))


def encode_stream_failure(text: str, request_id: str = "", model_name: str = "", model_version: str = "") -> bytes:
    """A ModelStreamInferResponse with the failure of one request."""
    names = (field(0x0A, model_name.encode()), field(0x12, model_version.encode()), field(0x1A, request_id.encode()))
    answer = b"".join((*names, _FINAL[True]))
    return b"".join((field(0x0A, text.encode(errors="replace")), b"\x12", varint(len(answer)), answer))


@lru_cache(_CACHED)
def _head(model_name: str, version: int) -> bytes:
    return field(0x0A, model_name.encode()) + field(0x12, str(version).encode())


@lru_cache(_CACHED)
def _output(name: str, dtype: DType, shape: tuple[int, ...]) -> bytes:
    fields = (
        field(0x0A, name.encode()),
        field(0x12, dtype.oip_name.encode()),
        field(0x1A, b"".join(map(varint, shape))),
    )
    return field(0x2A, b"".join(fields))
