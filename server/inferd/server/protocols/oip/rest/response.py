"""Writes an inference response of the Open Inference Protocol over REST: JSON, followed by the tensors that the client
wants as raw bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from inferd.backends.api import Array
from inferd.server.errors import InvalidRequest
from inferd.server.http.json.arrays import strings_of
from inferd.server.http.json.text import dumps, fragment, row_texts
from inferd.server.http.reply import JSON, Reply
from inferd.server.inference.finish import unsendable
from inferd.server.lifecycle.state import ServableId
from inferd.server.protocols.common.answers import Answer
from inferd.server.protocols.oip.classification import classified
from inferd.server.protocols.oip.codec import OipExtras
from inferd.wire.dtypes import DType
from inferd.wire.tensors import Buffer, WireError, encodable_dtype, raw

BINARY: Final = "application/octet-stream"
# Names of the element types that JSON can express as numbers, or as true and false.
_WRITABLE: Final = {
    dtype.numpy: dtype.oip_name for dtype in DType if dtype not in (DType.FP16, DType.BF16, DType.STRING)
}


def write_replies(id_: ServableId, outputs: Mapping[str, Array], request_ids: Sequence[str]) -> list[Reply] | None:
    """The responses to requests that ran in one batch, want all their outputs as JSON and have equally many rows;
    `outputs` have the rows of all, one request after the other. None: some output is not of numbers that JSON can
    express, and each response must be written alone."""
    count = len(request_ids)
    columns: list[list[bytes]] = []
    opening = b'"outputs":['
    for name, array in outputs.items():
        if array.dtype not in _WRITABLE or not array.size:
            return None
        shape = array.shape if count == 1 else (len(array) // count, *array.shape[1:])
        head = dumps({"name": name, "datatype": _WRITABLE[array.dtype], "shape": shape})
        opening += head[:-1] + b',"data":['
        columns += ([opening] * count, row_texts(array.reshape(count, -1)))
        opening = b"]},"
    start = dumps({"model_name": id_.name, "model_version": str(id_.version)})[:-1]
    starts = [start + (b',"id":' + dumps(request_id) if request_id else b"") + b"," for request_id in request_ids]
    return [Reply(200, b"".join(parts) + b"]}]}", JSON) for parts in zip(starts, *columns, strict=True)]


def write_reply(answer: Answer, request_id: str, extras: OipExtras) -> Reply:
    """The response: JSON, and raw tensors behind it where the request asks for them. Raises InvalidRequest for an
    output that cannot be written as JSON, ExecutionFailed for one that cannot be sent in any form."""
    options, formats = extras.options, extras.formats
    outputs = classified(answer, options.classes) if options.classes else answer.outputs
    entries: list[dict[str, Any]] = []
    raw_tensors: list[Buffer] = []
    try:
        for name, array in outputs.items():
            dtype = encodable_dtype(name, array)
            entry: dict[str, Any] = {"name": name, "datatype": dtype.oip_name, "shape": list(array.shape)}
            target = options.targets.get(name)
            if target is not None:
                where = target.write(name, raw(name, array, dtype))
                entry["parameters"] = {key: parameter.value for key, parameter in where.items()}
            elif formats.is_binary(name):
                data = raw(name, array, dtype)
                entry["parameters"] = {"binary_data_size": len(data)}
                raw_tensors.append(data)
            else:
                entry["data"] = _listed(name, array, dtype)
            entries.append(entry)
    except WireError as error:
        raise unsendable(error) from None
    head: dict[str, Any] = {"model_name": answer.id.name, "model_version": str(answer.id.version)}
    if request_id:
        head["id"] = request_id
    text = dumps({**head, "outputs": entries})
    if not raw_tensors:
        return Reply(200, text, JSON)
    headers = {"Inference-Header-Content-Length": str(len(text))}
    return Reply(200, b"".join((text, *raw_tensors)), BINARY, headers)


def _listed(name: str, array: Array, dtype: DType) -> Any:
    if dtype in (DType.FP16, DType.BF16):
        raise InvalidRequest(
            f"sending {dtype.name} data via JSON is not supported. Please use the binary data format for output "
            f"'{name}'"
        )
    flat = array.reshape(-1)
    if dtype is not DType.STRING:
        return fragment(flat)
    try:
        return strings_of(flat, bytes.decode)
    except UnicodeDecodeError:
        raise InvalidRequest(
            f"output '{name}' holds bytes that are not UTF-8, not JSON. Please use the binary data format"
        ) from None
