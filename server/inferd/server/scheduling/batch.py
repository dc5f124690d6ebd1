"""From requests to one run of the model and back. Pure, except for the buffers it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from inferd.backends.api import Array, BackendError, Traits
from inferd.server.scheduling.buffers import Buffers, is_aligned
from inferd.server.scheduling.padding import Padding
from inferd.server.scheduling.request import InferenceRequest

Share = tuple[Sequence[InferenceRequest], dict[str, Array]]
"""Requests with one Route and one owner, and the rows of a batch's outputs that are theirs."""


class WrongRows(BackendError):
    """The model gave other rows than it got: nobody can say whose they are."""


def wanted_outputs(requests: Sequence[InferenceRequest]) -> tuple[str, ...] | None:
    """The outputs that any of the requests wants, None for all: nothing else is computed."""
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
    """The inputs of requests with one Route as they lie in their messages: views of a single one, several joined byte
    by byte. Read-only and aligned as their types ask. None where the inputs do not lie in messages."""
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
    """The inputs of a request that runs alone: as they are where the model allows, else copies."""
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
    """The inputs of a batch: rows one after the other, padded where that is declared; what has no batch axis once."""
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
    """Takes buffers that an output is a view of out of use: the outputs belong to the callers from now on."""
    for name, flat in tuple(buffers.lent.items()):
        if any(np.may_share_memory(output, flat) for output in outputs.values()):
            buffers.forget(name)


def check_rows(outputs: Mapping[str, Array], rows: int) -> None:
    """Raises WrongRows unless every output has `rows` rows."""
    for name, output in outputs.items():
        if not output.ndim or output.shape[0] != rows:
            raise WrongRows(f"output {name!r} has shape {list(output.shape)} for a batch of {rows} rows")


def pick(outputs: dict[str, Array], wanted: tuple[str, ...] | None) -> dict[str, Array]:
    """The wanted ones among the outputs. Raises BackendError when the model did not give one."""
    if wanted is None or wanted == tuple(outputs):
        return outputs
    try:
        return {name: outputs[name] for name in wanted}
    except KeyError:
        check_names(outputs, frozenset(wanted))
        raise


def check_names(outputs: Mapping[str, Array], names: frozenset[str]) -> None:
    """Raises BackendError where one of the outputs is missing."""
    if not names <= outputs.keys():
        missing = ", ".join(map(repr, sorted(names - outputs.keys())))
        raise BackendError(f"the model gave no output {missing}, only {', '.join(outputs)}")


def split(
    outputs: Mapping[str, Array], requests: Sequence[InferenceRequest], wanted: tuple[str, ...] | None
) -> list[Share]:
    """Which requests get which rows of the outputs, as views: neighbours with one Route get theirs as one piece, every
    other request its own. `wanted` is what was computed. `check_rows` comes first.
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
