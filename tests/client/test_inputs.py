"""Conversion of lists and plain values with the signature, without a server."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from inferd.client import DType, InvalidInput, ModelMetadata, Signature, TensorSpec
from inferd.client._shared.inputs import described_arrays, plain_arrays


def one_input(dtype: DType | None) -> ModelMetadata:
    spec = TensorSpec("x", dtype, None)
    return ModelMetadata("m", 1, "onnx", (Signature("serving_default", (spec,), ()),))


def made(value: object, dtype: DType | None) -> np.ndarray:
    return described_arrays({"x": value}, one_input(dtype), None)["x"]


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        ([1, 2], DType.FP32, np.array([1, 2], np.float32)),
        ([1.5], DType.FP16, np.array([1.5], np.float16)),
        ([1.5], DType.BF16, np.array([1.5], ml_dtypes.bfloat16)),
        (3, DType.INT64, np.array(3, np.int64)),
        (True, DType.INT8, np.array(1, np.int8)),
        ([[True]], DType.BOOL, np.array([[True]])),
        ([], DType.INT32, np.zeros(0, np.int32)),
        ([255], DType.UINT8, np.array([255], np.uint8)),
        ((1, 2), DType.FP64, np.array([1.0, 2.0])),
        (range(3), DType.INT16, np.arange(3, dtype=np.int16)),
        ([2**63, 1], DType.UINT64, np.array([2**63, 1], np.uint64)),
        ([[2**64 - 1], [0]], DType.UINT64, np.array([[2**64 - 1], [0]], np.uint64)),
        ([2**64, 1], DType.FP64, np.array([2.0**64, 1.0])),
        ([float("inf"), float("-inf")], DType.FP16, np.array([np.inf, -np.inf], np.float16)),
    ],
)
def test_values_get_the_element_type_of_the_signature(value, dtype, expected):
    array = made(value, dtype)
    assert array.dtype == expected.dtype
    assert array.shape == expected.shape
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", np.array("text", object)),
        (["a", b"b\x00"], np.array(["a", b"b\x00"], object)),
        ([[b"\x00"]], np.array([[b"\x00"]], object)),
        (["good", b"\xff\xfe"], np.array(["good", b"\xff\xfe"], object)),
        ([b"\xff", "\u00fc"], np.array([b"\xff", "\u00fc"], object)),
        ([], np.zeros(0, object)),
    ],
)
def test_strings_are_not_changed(value, expected):
    array = made(value, DType.STRING)
    assert array.dtype == object
    assert array.shape == expected.shape
    assert array.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("value", "dtype", "told"),
    [
        ([1.5], DType.INT64, "takes INT64, the list holds floats"),
        ([300], DType.UINT8, "300 does not fit into UINT8"),
        ([-1], DType.UINT64, "-1 does not fit into UINT64"),
        ([2], DType.BOOL, "takes BOOL, the list holds integers"),
        (["a"], DType.FP32, "takes FP32, the list holds text"),
        ([1], DType.STRING, "takes STRING, the list holds integers"),
        ([None], DType.STRING, "takes STRING, the list holds None"),
        ([[1], [2, 3]], DType.FP32, "the list is no array"),
        ([1j], DType.FP32, "takes FP32, the list holds complex"),
        ([None], DType.FP32, "takes FP32, the list holds None"),
        ({"a": 1}, None, "is a dict; expected an array, a list or a number"),
        ({1, 2}, DType.FP32, "is a set; expected an array"),
        (float, DType.FP32, "is a type; expected an array"),
        (None, DType.FP32, "is None; expected an array, a list or a number"),
        (None, None, "is None; expected an array"),
        ([1, None], DType.FP32, "takes FP32, the list holds None"),
        ([1, None], None, "the list holds None; expected numbers or text"),
        (object(), None, "object is no array"),
        ([["a"], ["b", "c"]], DType.STRING, "rows differ in length"),
        ([2**64], DType.UINT64, "18446744073709551616 does not fit into UINT64"),
        ([2**63, -1], DType.INT64, "9223372036854775808 does not fit into INT64"),
        ([2**63, 1.5], DType.INT64, "takes INT64, the list holds floats"),
        ([70000.0], DType.FP16, "70000.0 does not fit into FP16"),
        ([[1, 70000]], DType.FP16, "70000 does not fit into FP16"),
        ([1e39], DType.FP32, "1e.39 does not fit into FP32"),
        ([3.4e38, 1e300], DType.BF16, "does not fit into BF16"),
        ([10**400], DType.FP64, "does not fit into FP64"),
    ],
)
def test_conversions_that_would_change_a_value_are_refused(value, dtype, told):
    with pytest.raises(InvalidInput, match=told):
        made(value, dtype)


def test_arrays_are_never_changed_even_when_the_type_differs():
    array = np.zeros(2)
    assert made(array, DType.FP32) is array


def test_an_input_that_the_signature_does_not_know_keeps_numpys_type():
    assert described_arrays({"other": [1]}, one_input(DType.FP32), None)["other"].dtype == np.int64


def test_only_a_mapping_of_arrays_takes_the_fast_path():
    assert plain_arrays(np.zeros(1)) is None
    assert plain_arrays({"x": [1]}) is None
    assert set(plain_arrays({"x": np.zeros(1), "y": np.float32(1)}) or ()) == {"x", "y"}


def test_an_optional_input_does_not_hide_the_only_required_one():
    specs = (TensorSpec("x", DType.FP32, None), TensorSpec("o", DType.FP32, None, optional=True))
    metadata = ModelMetadata("m", 1, "onnx", (Signature("s", specs, ()),))
    assert list(described_arrays([1.0], metadata, None)) == ["x"]


def test_inputs_that_are_none_are_named(client):
    with pytest.raises(InvalidInput, match="inputs is None; expected a mapping of name to array"):
        client.predict("m", None)
