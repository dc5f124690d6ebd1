"""TensorFlow's numbers of the element types, and the TensorProto fields that hold their values."""

from __future__ import annotations

from inferd.wire.dtypes import DType

NUMBER = {
    DType.FP32: 1,
    DType.FP64: 2,
    DType.INT32: 3,
    DType.UINT8: 4,
    DType.INT16: 5,
    DType.INT8: 6,
    DType.STRING: 7,
    DType.INT64: 9,
    DType.BOOL: 10,
    DType.BF16: 14,
    DType.UINT16: 17,
    DType.FP16: 19,
    DType.UINT32: 22,
    DType.UINT64: 23,
}
DTYPE = {number: dtype for dtype, number in NUMBER.items()}

FIELD = {
    DType.FP32: "float_val",
    DType.FP64: "double_val",
    DType.INT32: "int_val",
    DType.UINT8: "int_val",
    DType.INT16: "int_val",
    DType.INT8: "int_val",
    DType.STRING: "string_val",
    DType.INT64: "int64_val",
    DType.BOOL: "bool_val",
    DType.BF16: "half_val",
    DType.UINT16: "int_val",
    DType.FP16: "half_val",
    DType.UINT32: "uint32_val",
    DType.UINT64: "uint64_val",
}
