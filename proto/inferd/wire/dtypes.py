"""Element types: one enum for all protocols and backends.

The name of a member is its datatype in the Open Inference Protocol, except for STRING, which is called BYTES there. Its
value is its number in `inferd.v1.DataType` and in Triton's model_config.proto.
"""

from __future__ import annotations

import enum
from typing import Any

import numpy as np


class DType(enum.IntEnum):
    """An element type of tensors that can be sent."""

    BOOL = 1
    UINT8 = 2
    UINT16 = 3
    UINT32 = 4
    UINT64 = 5
    INT8 = 6
    INT16 = 7
    INT32 = 8
    INT64 = 9
    FP16 = 10
    FP32 = 11
    FP64 = 12
    STRING = 13
    BF16 = 14

    @property
    def itemsize(self) -> int:
        """Bytes of an element in raw form; 0 for STRING, whose elements differ in length."""
        return _ITEMSIZE[self]

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy type of this element type, little-endian. For STRING it is `object`; the elements are `bytes`.

        Raises ImportError for BF16 if `ml_dtypes` is not installed, because numpy itself has no bfloat16.
        """
        if self is DType.BF16:
            return bfloat16()
        return _NUMPY[self]

    @property
    def oip_name(self) -> str:
        """The name in the Open Inference Protocol."""
        return "BYTES" if self is DType.STRING else self.name


_NUMPY: dict[DType, np.dtype[Any]] = {
    DType.BOOL: np.dtype(np.bool_),
    DType.UINT8: np.dtype("u1"),
    DType.UINT16: np.dtype("<u2"),
    DType.UINT32: np.dtype("<u4"),
    DType.UINT64: np.dtype("<u8"),
    DType.INT8: np.dtype("i1"),
    DType.INT16: np.dtype("<i2"),
    DType.INT32: np.dtype("<i4"),
    DType.INT64: np.dtype("<i8"),
    DType.FP16: np.dtype("<f2"),
    DType.FP32: np.dtype("<f4"),
    DType.FP64: np.dtype("<f8"),
    DType.STRING: np.dtype(object),
}
_ITEMSIZE = {d: 0 if d is DType.STRING else 2 if d is DType.BF16 else _NUMPY[d].itemsize for d in DType}
_FROM_NUMPY: dict[np.dtype[Any], DType] = {numpy: dtype for dtype, numpy in _NUMPY.items()}
_FROM_NAME = {d.name: d for d in DType} | {"BYTES": DType.STRING}


def bfloat16() -> np.dtype[Any]:
    """The numpy type for bfloat16, from `ml_dtypes`. Raises ImportError if the package is missing; the message names
    it."""
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError("BF16 tensors need the package ml_dtypes: pip install ml_dtypes") from None
    numpy: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return numpy


def dtype_of(array: np.ndarray[Any, Any]) -> DType:
    """The element type that holds the elements of an array without loss. Raises TypeError if there is none.

    Any byte order is accepted; str, bytes and object arrays are STRING.
    """
    numpy = array.dtype
    found = _FROM_NUMPY.get(numpy)
    if found is not None:
        return found
    if numpy.kind in "SUOT":  # T: numpy 2's strings of any length
        return DType.STRING
    if numpy.name == "bfloat16":
        return DType.BF16
    found = _FROM_NUMPY.get(numpy.newbyteorder("<"))
    if found is not None:
        return found
    raise TypeError(f"arrays of {numpy} cannot be sent; the element types are {', '.join(d.name for d in DType)}")


def dtype_named(name: str) -> DType:
    """The element type with this name ("FP32", "STRING" or "BYTES"). Raises KeyError for an unknown name."""
    return _FROM_NAME[name]
