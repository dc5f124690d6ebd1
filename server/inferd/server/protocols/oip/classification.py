"""The classification extension: the response has the top classes of an output instead of its values.

A class is the string "<value>:<index>", or "<value>:<index>:<label>" if the model's configuration has a file of labels
for the output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from inferd.backends.api import Array
from inferd.server.errors import InvalidRequest
from inferd.server.protocols.common.answers import Answer


def classified(answer: Answer, classes: Mapping[str, int]) -> dict[str, Array]:
    """The outputs, each one in `classes` replaced by that many top classes. Raises InvalidRequest for an output whose
    values have no order."""
    labels = answer.class_labels or {}
    batched = answer.max_batch_size > 0
    return {
        name: top_classes(name, array, classes[name], batched=batched, labels=labels.get(name, ()))
        if name in classes
        else array
        for name, array in answer.outputs.items()
    }


def top_classes(name: str, array: Array, count: int, *, batched: bool, labels: Sequence[str] = ()) -> Array:
    """The `count` highest values of each row, descending, equal values by index. The result has strings and shape
    [batch, count], or [count] for an output without a batch axis. A `count` above the number of values is cut to it."""
    if array.dtype == object or (array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16"):
        raise InvalidRequest(f"class result not available for output '{name}' due to unsupported type")
    count_of_rows = len(array) if batched and array.ndim else 1
    row_size = math.prod(array.shape[1:] if batched else array.shape)
    rows = array.reshape(count_of_rows, row_size)
    keys = rows.astype(np.float64) if rows.dtype.kind not in "iu" else rows
    # A stable sort of the reversed row, reversed again: among equal values, the lower index comes first.
    order = (rows.shape[1] - 1 - np.argsort(keys[:, ::-1], axis=1, kind="stable"))[:, ::-1][:, :count]
    integers = rows.dtype.kind in "iu"
    classes = np.empty(order.shape, object)
    for row, columns in enumerate(order):
        for place, index in enumerate(columns):
            value = rows[row, index]
            text = str(int(value)) if integers else f"{float(value):f}"
            label = f":{labels[index]}" if index < len(labels) and labels[index] else ""  # an empty line is no label
            classes[row, place] = f"{text}:{index}{label}".encode()
    return classes if batched and array.ndim else classes.reshape(-1)
