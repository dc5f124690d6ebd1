"""The classification extension: instead of an output's values its top classes, as "<value>:<index>".

Where the model's configuration has a file of labels for the output: "<value>:<index>:<label>".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from inferd.backends.api import Array
from inferd.server.errors import InvalidRequest
from inferd.server.inference.service import Answer


def classified(answer: Answer, classes: Mapping[str, int]) -> dict[str, Array]:
    """The outputs with those in `classes` replaced. Raises InvalidRequest for one that has no order."""
    labels = answer.class_labels or {}
    batched = answer.max_batch_size > 0
    return {
        name: top_classes(name, array, classes[name], batched=batched, labels=labels.get(name, ()))
        if name in classes
        else array
        for name, array in answer.outputs.items()
    }


def top_classes(name: str, array: Array, count: int, *, batched: bool, labels: Sequence[str] = ()) -> Array:
    """The `count` highest values, descending, equal ones by index: strings of shape [batch, count], or [count] for an
    output without a batch axis. There are never more classes than values."""
    if array.dtype == object or (array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16"):
        raise InvalidRequest(f"class result not available for output '{name}' due to unsupported type")
    count_of_rows = len(array) if batched and array.ndim else 1
    each = math.prod(array.shape[1:] if batched else array.shape)
    rows = array.reshape(count_of_rows, each)
    keys = rows.astype(np.float64) if rows.dtype.kind not in "iu" else rows
    # Stable on the reversed row, so that among equal values the lower index comes first after turning round.
    order = (rows.shape[1] - 1 - np.argsort(keys[:, ::-1], axis=1, kind="stable"))[:, ::-1][:, :count]
    whole = rows.dtype.kind in "iu"
    found = np.empty(order.shape, object)
    for row, columns in enumerate(order):
        for place, index in enumerate(columns):
            value = rows[row, index]
            shown = str(int(value)) if whole else f"{float(value):f}"
            label = f":{labels[index]}" if index < len(labels) and labels[index] else ""  # an empty line names nothing
            found[row, place] = f"{shown}:{index}{label}".encode()
    return found if batched and array.ndim else found.reshape(-1)
