"""Numbers that arrive in a wider type than the tensor's: in typed fields of protobuf messages, in JSON, in settings.

A number that the tensor's element type cannot hold is refused. It is never cut, wrapped around or turned into infinity.
All functions are thread-safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from inferd.wire.dtypes import DType
from inferd.wire.tensors import Array, TensorError

_DIGITS = 40  # the longest whole number that a message shows


def narrowed(wide: Array, dtype: DType, where: str) -> Array:
    """The numbers as `dtype`, which is no STRING and no BOOL: `wide` itself if it is of that type already.

    Whole numbers (kinds i and u) fit an integer type within its range, and a float type up to its largest number.
    Fractions (kind f) fit float types only; NaN and infinity stay what they are there. Digits that a float type has no
    room for are rounded. Raises TensorError, which begins with `where` and names the number and the type; ImportError
    for BF16 without ml_dtypes.
    """
    target = dtype.numpy
    if wide.dtype == target:
        return wide
    if target.kind in "iu":
        if wide.dtype.kind not in "iu":
            whole = f"expected whole numbers for {dtype.name}"
            raise TensorError(f"{where}: {whole}, got {wide.reshape(-1)[0]!s}" if wide.size else f"{where}: {whole}")
        limits = np.iinfo(target)
        if wide.size:
            low, high = int(wide.min()), int(wide.max())
            if low < limits.min or high > limits.max:
                raise out_of_range(low if low < limits.min else high, dtype, where)
        return wide.astype(target)
    with np.errstate(over="ignore"):
        narrow: Array = wide.astype(target)
    finite = np.isfinite(narrow)
    if not finite.all():
        lost = ~finite & np.isfinite(wide)
        if lost.any():
            raise out_of_range(wide[lost].reshape(-1)[0], dtype, where)
    return narrow


def out_of_range(number: Any, dtype: DType, where: str) -> TensorError:
    """The error for a number that `dtype` cannot hold."""
    return TensorError(f"{where}: {_shown(number)} is out of the range of {dtype.name}, expected {_range(dtype)}")


def _range(dtype: DType) -> str:
    kind = dtype.numpy.kind
    if kind in "iu":
        limits = np.iinfo(dtype.numpy)
        return f"{limits.min} to {limits.max}"
    largest = 3.3895313892515355e38 if dtype is DType.BF16 else float(np.finfo(dtype.numpy).max)
    return f"at most {largest:.6g} in magnitude"


def from_integers(values: Sequence[int], dtype: DType, where: str, *, signed: bool = True) -> Array:
    """An array of an integer type from a protobuf field of wider integers. `signed`: the field's numbers may be
    negative. Raises TensorError."""
    return narrowed(np.fromiter(values, np.int64 if signed else np.uint64, len(values)), dtype, where)


def _shown(number: Any) -> str:
    if isinstance(number, float | np.floating):
        return f"{float(number):.6g}"
    text = str(number)
    return text if len(text) <= _DIGITS else f"{text[:10]}... ({len(text.lstrip('-'))} digits)"
