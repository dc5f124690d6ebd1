"""Compares the outputs of two runs of the same row. Pure.

Two runs may differ by rounding, because a framework chooses its kernels by the number of rows. A run of as many rows,
in which only the contents of the other rows are different, uses the same kernels: there a much smaller difference
shows that rows influence each other.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from inferd.backends.api import Array, Signature
from inferd.wire.dtypes import DType

Outputs = Mapping[str, Array]

_HALF = frozenset({DType.FP16, DType.BF16})
_FLIPS = 1000  # one whole number in so many may differ by rounding: the larger of two scores that are nearly equal
_AMPLIFIED = 5e-2  # rounding that a step of quantisation has amplified


def tolerance_of(signature: Signature) -> float:
    """How far two outputs may differ by rounding, relative to the largest value of an output."""
    half = any(spec.dtype in _HALF for spec in (*signature.inputs, *signature.outputs))
    return 2e-2 if half else 1e-4


def difference(expected: Outputs, got: Outputs, tolerance: float) -> str | None:
    """The first output in which `got` differs from `expected` by more than rounding, with the size of the difference;
    None if they agree. `tolerance` is relative to the largest finite value of an output."""
    return _first(expected, got, tolerance, floor=tolerance)


def content_difference(expected: Outputs, got: Outputs, tolerance: float) -> str | None:
    """As `difference`, for runs of as many rows with the row at the same place. `tolerance` is relative to each
    element: only a hundredth of it is allowed relative to the largest value."""
    return _first(expected, got, tolerance, floor=tolerance / 100)


def amplified(expected: Outputs, got: Outputs, *, discrete: bool) -> bool:
    """Whether `got` may differ from `expected` by rounding that quantisation or a choice between nearly equal scores
    has amplified. `discrete`: also where whole numbers or texts differ in more than one of a thousand places."""
    if expected.keys() != got.keys():
        return False
    for name, left in expected.items():
        right = got[name]
        if left.shape != right.shape:
            return False
        if left.dtype.kind in "biuSUO":
            if not discrete and np.count_nonzero(left != right) > left.size // _FLIPS:
                return False
        elif not _close(left, right, _AMPLIFIED, _AMPLIFIED):
            return False
    return True


def _first(expected: Outputs, got: Outputs, tolerance: float, floor: float) -> str | None:
    if expected.keys() != got.keys():
        return "set"
    for name, left in expected.items():
        right = got[name]
        if left.shape != right.shape:
            return f"{name!r} (shape {list(right.shape)} instead of {list(left.shape)})"
        if left.dtype.kind in "biuSUO":
            if not np.array_equal(left, right):
                return repr(name)
        elif not _close(left, right, tolerance, floor):
            with np.errstate(invalid="ignore"):
                apart = np.abs(left.astype(np.float64) - right.astype(np.float64))
            finite = apart[np.isfinite(apart)]
            return f"{name!r} (by up to {finite.max():.3g})" if finite.size else f"{name!r} (NaN or infinity)"
    return None


def _close(left: Array, right: Array, tolerance: float, floor: float) -> bool:
    if not left.size:
        return True
    kind = np.complex128 if left.dtype.kind == "c" else np.float64
    x, y = left.astype(kind), right.astype(kind)
    # Relative to the largest value as well, because an element near zero may be the difference of large values.
    finite = np.abs(x[np.isfinite(x)])
    scale = float(finite.max()) if finite.size else 0.0
    return bool(np.allclose(x, y, rtol=tolerance, atol=floor * scale, equal_nan=True))
