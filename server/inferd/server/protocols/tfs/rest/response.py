"""Writes the response to a predict request of TensorFlow Serving's REST API, as rows or columns like the request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inferd.backends.api import Array
from inferd.server.errors import InvalidRequest
from inferd.server.http.json.arrays import b64, text_or_b64, value_of
from inferd.server.http.json.text import dumps


def write_response(outputs: Mapping[str, Array], *, rows: bool) -> bytes:
    """The body. Raises InvalidRequest for `rows` when the outputs do not all have the same number of rows."""
    if not rows:
        columns = {name: _value(name, array) for name, array in outputs.items()}
        return dumps({"outputs": next(iter(columns.values())) if len(columns) == 1 else columns})
    rows_of = {array.shape[:1] for array in outputs.values()}
    if len(rows_of) != 1 or () in rows_of:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
        raise InvalidRequest(
            f"Tensors of the answer have inconsistent batch size, so that there are no rows: {shapes}; ask with "
            "'inputs' instead of 'instances'"
        )
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        return dumps({"predictions": _value(name, array)})
    count = len(next(iter(outputs.values())))
    split = {name: _split(name, array) for name, array in outputs.items()}
    return dumps({"predictions": [{name: parts[row] for name, parts in split.items()} for row in range(count)]})


def _split(name: str, array: Array) -> list[Any]:
    return [_value(name, array[row : row + 1].reshape(array.shape[1:])) for row in range(len(array))]


def _value(name: str, array: Array) -> Any:
    # TensorFlow Serving writes outputs whose names end in "_bytes" as base64, even if they are text.
    return value_of(array, b64 if name.endswith("_bytes") else text_or_b64)
