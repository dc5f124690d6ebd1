"""What a function returned, as arrays of declared types.

Arrays must have the declared element type exactly: a silent conversion would hide mistakes. Plain Python values (lists,
numbers, texts) have no element type of their own; they are converted where nothing is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inferd.backends.api import Array, BackendError, BrokenContract, TensorSpec
from inferd.backends.checks import fits, shape_text
from inferd.wire.dtypes import DType, dtype_of
from inferd.wire.numbers import narrowed

_SHOWN = 8  # names in one message


def arrays_of(
    where: str, values: Mapping[Any, Any], specs: Sequence[TensorSpec], *, own: bool = False
) -> dict[str, Array]:
    """The arrays of a function's result that `specs` name; others are left out. `where`: the function, for messages.
    `own`: copies, which nobody else has.

    Raises BrokenContract for one that is missing or has another element type or rank, BackendError for another size.
    """
    arrays = {}
    for spec in specs:
        value = values.get(spec.name)
        if value is None:
            if spec.optional:
                continue
            raise BrokenContract(f"{where} returned no {spec.name!r}, only {_names(values)}")
        array = _array(f"{where}: {spec.name!r}", spec.dtype, value)
        shape = spec.shape
        if shape is not None and not fits(array.shape, shape):
            text = f"{where}: {spec.name!r}: expected shape {shape_text(shape)}, got {shape_text(array.shape)}"
            raise (BackendError if array.ndim == len(shape) else BrokenContract)(text)
        arrays[spec.name] = array.copy(order="C") if own else np.asarray(array, order="C")
    return arrays


def _names(values: Mapping[Any, Any]) -> str:
    names = [str(name)[:60] for name in values][:_SHOWN]
    return ", ".join(names) or "nothing"


def _array(where: str, dtype: DType, value: Any) -> Array:
    """A value as an array of this element type."""
    try:
        if dtype is DType.STRING:
            return _texts(where, value)
        typed = isinstance(value, np.ndarray | np.generic) or hasattr(value, "__array__")
        wide = np.asarray(value)
        if typed or wide.dtype.kind not in "iufb" or (wide.dtype.kind == "b") != (dtype is DType.BOOL):
            return _exact(where, dtype, wide)
        return wide if dtype is DType.BOOL else narrowed(wide, dtype, where)
    except BackendError:
        raise
    except Exception as error:
        raise BrokenContract(f"{where}: expected an array of {dtype.name}: {' '.join(str(error).split())}") from None


def _exact(where: str, dtype: DType, array: Array) -> Array:
    try:
        found = dtype_of(array)
    except TypeError:
        found = None
    if found is not dtype:
        got = str(array.dtype) if found is None else found.name
        hint = f"; convert it with .astype({dtype.numpy.name!r})" if array.dtype.kind in "iufb" else ""
        raise BrokenContract(f"{where}: expected {dtype.name}, got {got}{hint}")
    return array.astype(dtype.numpy, copy=False)


def _texts(where: str, value: Any) -> Array:
    array = np.asarray(value, dtype=object)
    flat = array.reshape(-1)
    texts = np.empty(array.size, object)
    for i, item in enumerate(flat.tolist()):
        if isinstance(item, str):
            texts[i] = item.encode(errors="surrogateescape")
        elif isinstance(item, bytes):
            texts[i] = bytes(item)
        else:
            raise BrokenContract(f"{where}: expected texts (bytes or str), got {type(item).__name__}")
    return texts.reshape(array.shape)
