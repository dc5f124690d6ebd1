"""Joins the inputs of requests into one batch and splits its outputs. Pure functions, except for the buffers that they
write to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from inferd.backends.api import Array, BackendError, Traits
from inferd.server.scheduling.buffers import Buffers, is_aligned
from inferd.server.scheduling.padding import Padding
from inferd.server.scheduling.request import InferenceRequest

Share = tuple[Sequence[InferenceRequest], dict[str, Array]]
"""Requests with the same Route and owner, and their rows of the batch's outputs."""


class WrongRows(BackendError):
    """An output has another number of rows than the inputs, so that its rows cannot be assigned to requests."""


def wanted_outputs(requests: Sequence[InferenceRequest]) -> tuple[str, ...] | None:
    """The outputs to compute: those that any of the requests wants; None: all."""
    wanted = requests[0].route.wanted
    for request in requests:
        if request.route.wanted != wanted:
            break
    else:
        return wanted
    names: dict[str, None] = {}
    for request in requests:
        if request.route.wanted is None:
            return None
        names.update(dict.fromkeys(request.route.wanted))
    return tuple(names)


def received_inputs(requests: Sequence[InferenceRequest]) -> dict[str, Array] | None:
    """The inputs of requests with the same Route, read from their messages: views of a single message, or a copy that
    joins several messages. The arrays are read-only, and aligned to their element size. None where a request has
    decoded arrays instead of a message."""
    first = requests[0]
    layout = first.layout
    if layout is None:
        return None
    if len(requests) == 1:
        return layout.aligned(first.message)
    for request in requests:
        if request.layout is None:
            return None
    return layout.form.joined(requests)


def private_inputs(request: InferenceRequest, traits: Traits, buffers: Buffers) -> dict[str, Array]:
    """The inputs of a request that runs alone: its own arrays where alignment and `may_write_inputs` allow it, else
    copies in `buffers`."""
    alignment = traits.alignment
    copy = traits.may_write_inputs and not request.owned
    if not copy and alignment <= 1:
        return request.inputs
    return {
        name: buffers.copy(name, array) if copy or not is_aligned(array, alignment) else array
        for name, array in request.inputs.items()
    }


def join(
    requests: Sequence[InferenceRequest],
    rows: int,
    *,
    batched: frozenset[str],
    padding: Padding,
    traits: Traits,
    buffers: Buffers,
) -> dict[str, Array]:
    """The inputs of a batch of `rows` rows: the rows of the requests one after the other, padded where declared. An
    input without a batch axis is equal in all requests and appears once. `batched`: names of inputs that may have a
    batch axis.
    """
    joined: dict[str, Array] = {}
    for name, array in requests[0].inputs.items():
        if name in batched and array.ndim:
            parts = [request.inputs[name] for request in requests]
            shape = padding.shape(name, array.shape) if name in padding else array.shape
            if shape != array.shape or any(part.shape[1:] != array.shape[1:] for part in parts):
                joined[name] = into = buffers.empty(name, (rows, *shape[1:]), array.dtype)
                padding.fill(name, parts, into)
            elif len(parts) > 1:
                joined[name] = buffers.concatenate(name, parts, rows)
            else:
                joined[name] = private_inputs(requests[0], traits, buffers)[name]
        elif traits.may_write_inputs or not is_aligned(array, traits.alignment):
            joined[name] = buffers.copy(name, array)
        else:
            joined[name] = array
    return joined


def keep(outputs: Mapping[str, Array], buffers: Buffers) -> None:
    """Removes the buffers that an output shares memory with from `buffers`: the outputs now belong to the callers."""
    for name, flat in tuple(buffers.lent.items()):
        if any(np.may_share_memory(output, flat) for output in outputs.values()):
            buffers.forget(name)


def check_rows(outputs: Mapping[str, Array], rows: int) -> None:
    """Raises WrongRows unless every output has `rows` rows."""
    for name, output in outputs.items():
        if not output.ndim or output.shape[0] != rows:
            raise WrongRows(f"output {name!r} has shape {list(output.shape)} for a batch of {rows} rows")


def pick(outputs: dict[str, Array], wanted: tuple[str, ...] | None) -> dict[str, Array]:
    """The wanted outputs. Raises BackendError where the model has not returned one."""
    if wanted is None or wanted == tuple(outputs):
        return outputs
    try:
        return {name: outputs[name] for name in wanted}
    except KeyError:
        check_names(outputs, frozenset(wanted))
        raise


def check_names(outputs: Mapping[str, Array], names: frozenset[str]) -> None:
    """Raises BackendError where an output in `names` is missing."""
    if not names <= outputs.keys():
        missing = ", ".join(map(repr, sorted(names - outputs.keys())))
        raise BackendError(f"the model gave no output {missing}, only {', '.join(outputs)}")


def split(
    outputs: Mapping[str, Array], requests: Sequence[InferenceRequest], wanted: tuple[str, ...] | None
) -> list[Share]:
    """Assigns the rows of the outputs to the requests, as views. Consecutive requests with the same Route get one
    share. `wanted`: the outputs that were computed. `check_rows` must have passed.
    """
    shares: list[Share] = []
    items = list(outputs.items())
    first = start = 0
    while first < len(requests):
        request = requests[first]
        route = request.route
        last = first + 1
        stop = start + (route.rows or 1)
        while last < len(requests) and requests[last].route is route:  # one Route has one owner
            last += 1
            stop += route.rows or 1
        share = {name: output[start:stop] for name, output in items}
        shares.append((requests[first:last], share if route.wanted == wanted else pick(share, route.wanted)))
        first, start = last, stop
    return shares
