"""Whether a request fits a signature. Checked once for each request, before anything is queued.

Nothing is converted: a client that sends FP64 where FP32 is expected has made a mistake, which a conversion would hide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from inferd.backends.api import Array, Signature, TensorSpec
from inferd.server.errors import InvalidRequest
from inferd.server.lifecycle.state import ServableId
from inferd.wire.dtypes import DType, dtype_of

_SHOWN = 10
# By number, because a list is faster than a property of an enum member. BF16 is left out: its type needs an import that
# may fail.
_NUMPY: list[np.dtype[Any] | None] = [None] * (max(DType) + 1)
for _dtype in DType:
    if _dtype is not DType.BF16:
        _NUMPY[_dtype] = _dtype.numpy


def check_request(
    servable_id: ServableId, signature: Signature, inputs: Mapping[str, Array], wanted: Sequence[str]
) -> None:
    """Raises InvalidRequest unless every required input is there with the element type, rank and shape of its spec, no
    unknown input is there, and the outputs `wanted` exist and are named once each. -1 in a spec is any size; the batch
    axis is checked like the others."""
    known = 0
    for spec in signature.inputs:
        array = inputs.get(spec.name)
        if array is None:
            if spec.optional:
                continue
            _missing(servable_id, signature, spec, inputs)
        known += 1
        expected = _NUMPY[spec.dtype]
        came = array.dtype
        # numpy has one object for each common type, and comparing identities is much cheaper.
        if came is not expected and came != (spec.dtype.numpy if expected is None else expected):
            _unfit(servable_id, signature, spec, array)
        shape = spec.shape
        if shape is not None:
            got = array.shape
            if len(got) != len(shape):
                _unfit(servable_id, signature, spec, array)
            for axis, size in enumerate(shape):
                if size != got[axis] and size != -1:
                    _unfit(servable_id, signature, spec, array)
    if known != len(inputs):
        _unknown_inputs(servable_id, signature, inputs)
    if wanted:
        _check_outputs(servable_id, signature, wanted)


def describe(spec: TensorSpec) -> str:
    """A spec in words: FP32 [-1, 64]."""
    shape = "of any shape" if spec.shape is None else str(list(spec.shape))
    return f"{spec.dtype.name} {shape}"


def _where(servable_id: ServableId, signature: Signature) -> str:
    return f"model {servable_id.name!r} version {servable_id.version} signature {signature.name!r}"


def _missing(servable_id: ServableId, signature: Signature, spec: TensorSpec, inputs: Mapping[str, Array]) -> NoReturn:
    raise InvalidRequest(
        f"{_where(servable_id, signature)}: input {spec.name!r} is missing: expected {describe(spec)}, "
        f"got inputs {_listed(inputs) or 'none'}"
    )


def _unknown_inputs(servable_id: ServableId, signature: Signature, inputs: Mapping[str, Array]) -> NoReturn:
    names = {spec.name for spec in signature.inputs}
    unknown = [name for name in inputs if name not in names]
    raise InvalidRequest(
        f"{_where(servable_id, signature)}: unknown input {_listed(unknown)}: "
        f"expected {_listed(spec.name for spec in signature.inputs) or 'no inputs'}"
    )


def _unfit(servable_id: ServableId, signature: Signature, spec: TensorSpec, array: Array) -> NoReturn:
    try:
        came = dtype_of(array).name
    except TypeError:
        came = str(array.dtype)
    raise InvalidRequest(
        f"{_where(servable_id, signature)}: input {spec.name!r}: expected {describe(spec)}, "
        f"got {came} {list(array.shape)}"
    )


def _check_outputs(servable_id: ServableId, signature: Signature, wanted: Sequence[str]) -> None:
    names = [spec.name for spec in signature.outputs]
    unknown = [name for name in wanted if name not in names and name not in signature.aliases]
    if unknown:
        raise InvalidRequest(
            f"{_where(servable_id, signature)}: unknown output {_listed(unknown)}: expected some of {_listed(names)}"
        )
    if len(set(wanted)) != len(wanted):
        twice = sorted(name for name, times in Counter(wanted).items() if times > 1)
        raise InvalidRequest(f"{_where(servable_id, signature)}: output {_listed(twice)} is asked for more than once")


def _listed(names: Any) -> str:
    every = [repr(name[:100]) for name in names]
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
