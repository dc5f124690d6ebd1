"""Encoding and decoding of tensors: values, memory layouts, errors."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.wire.dtypes import DType, dtype_of
from inferd.wire.tensors import TensorError, count_of, decode, known_dtype, raw

NUMERIC = [d for d in DType if d not in {DType.STRING, DType.BF16}]


def encode(array: np.ndarray, name: str = "t") -> bytes:
    return b"".join([raw(name, array, dtype_of(array))])


@given(st.data())
def test_numbers_are_decoded_as_they_were_encoded(data: st.DataObject):
    dtype = data.draw(st.sampled_from(NUMERIC))
    array = data.draw(hnp.arrays(dtype.numpy, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)))
    back = decode("t", dtype, array.shape, encode(array))
    np.testing.assert_array_equal(back, array)
    assert back.dtype == dtype.numpy
    assert back.shape == array.shape
    assert not back.flags.writeable


@given(hnp.arrays(object, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0), elements=st.binary(max_size=20)))
def test_strings_are_decoded_as_they_were_encoded(array: np.ndarray):
    back = decode("t", DType.STRING, array.shape, encode(array))
    assert back.tolist() == array.tolist()
    assert back.shape == array.shape
    assert not back.flags.writeable


def test_bf16_is_decoded_as_it_was_encoded():
    array = np.array([[1.5, -2.0]], ml_dtypes.bfloat16)
    assert encode(array) == b"\xc0\x3f\x00\xc0"
    back = decode("t", DType.BF16, (1, 2), encode(array))
    assert back.dtype == array.dtype
    assert back.tolist() == [[1.5, -2.0]]
    big = np.ones((100, 100), ml_dtypes.bfloat16)  # larger than the size from which bytes are viewed instead of copied
    assert encode(big) == b"\x80\x3f" * 10_000


@pytest.mark.parametrize("side", [3, 100], ids=["small", "large"])
@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.astype(">f4"),
        lambda a: a.T,
        lambda a: a[::2, 1:],
        lambda a: a[::-1],
        np.asfortranarray,
        lambda a: np.broadcast_to(a[0], a.shape),
        lambda a: a.astype(">f4").T,
    ],
)
def test_any_layout_is_written_row_major_and_little_endian(side: int, change):
    array = change(np.arange(side * side, dtype=np.float32).reshape(side, side))
    assert encode(array) == np.ascontiguousarray(array, "<f4").tobytes()


def test_large_arrays_are_not_copied():
    array = np.zeros(100_000, np.float32)
    buffer = raw("t", array, DType.FP32)
    assert np.shares_memory(np.frombuffer(buffer, np.uint8), array)
    message = bytes(400_003)
    back = decode("t", DType.FP32, (100_000,), message, start=3)
    assert np.shares_memory(back, np.frombuffer(message, np.uint8))  # unaligned, and still a view


def test_text_and_fixed_width_strings():
    assert encode(np.array(["ü", ""])) == b"\x02\0\0\0\xc3\xbc\0\0\0\0"
    assert encode(np.array([b"ab", b"c"])) == b"\x02\0\0\0ab\x01\0\0\0c"
    assert encode(np.array("x", dtype=object)) == b"\x01\0\0\0x"


@pytest.mark.parametrize("element", [1, None, 2.5, ["a"], "\ud800"])
def test_elements_of_other_types_are_refused_with_the_tensors_name(element: object):
    array = np.empty(1, object)
    array[0] = element
    with pytest.raises(TensorError, match="'words'"):
        raw("words", array, DType.STRING)


@pytest.mark.parametrize(
    ("dtype", "shape", "data", "text"),
    [
        (DType.FP32, (2, 2), b"123", "tensor 't': expected 16 bytes for FP32 of shape [2, 2], got 3"),
        (DType.FP32, (), b"", "expected 4 bytes for FP32 of shape [], got 0"),
        (DType.FP32, (0,), b"1", "expected 0 bytes for FP32 of shape [0], got 1"),
        (DType.INT8, (-1,), b"1", "0 or more, got shape [-1]"),
        (DType.INT8, (2, -1), b"", "0 or more, got shape [2, -1]"),
        (DType.INT8, (2**62, 2), b"", "2^63 - 1 bytes"),
        (DType.FP64, (2**60, 1), b"", "2^63 - 1 bytes"),
        (DType.INT8, (2**62, 0, 2**62), b"", "2^63 - 1 bytes"),
        (DType.STRING, (2**62, 4), b"", "2^63 - 1 bytes"),
        (DType.STRING, (2**60, 0), b"", "2^63 - 1 bytes"),
        (DType.INT8, (1,) * 33, b"1", "at most 32 dimensions, got 33"),
        (DType.BOOL, (3,), b"\0\1\2", "expected BOOL bytes to be 0 or 1, got 2"),
        (DType.STRING, (2,), b"\0\0\0\0", "expected at least 8 bytes for STRING of shape [2], got 4"),
        (DType.STRING, (2**40,), b"\0\0\0\0", "expected at least"),
        (DType.STRING, (1,), b"\5\0\0\0abc", "string number 0 should have 5 bytes, only 3 are left"),
        (DType.STRING, (2,), b"\3\0\0\0abc\0", "the bytes end in the length of number 1"),
        (DType.STRING, (1,), b"\1\0\0\0abc", "expected 5 bytes for 1 strings, got 7"),
        (DType.STRING, (0,), b"\0\0\0\0", "expected 0 bytes for 0 strings, got 4"),
    ],
)
def test_data_that_does_not_fit_the_shape_is_refused(dtype: DType, shape: tuple[int, ...], data: bytes, text: str):
    with pytest.raises(TensorError) as caught:
        decode("t", dtype, shape, data)
    assert text in str(caught.value)


@given(st.binary(max_size=40), st.lists(st.integers(-1, 4), max_size=3), st.sampled_from(list(DType)))
def test_any_bytes_are_decoded_or_refused(data: bytes, shape: list[int], dtype: DType):
    try:
        array = decode("t", dtype, tuple(shape), data)
    except TensorError:
        return
    assert encode(array) == data


def test_ranks_up_to_the_limit():
    assert decode("t", DType.INT8, (1,) * 32, b"\7").ndim == 32
    assert count_of((), 4, "t") == 1


def test_an_unknown_element_type():
    with pytest.raises(TensorError, match=r"tensor 'x': unknown element type 99; expected one of BOOL = 1"):
        known_dtype(99, "x")
    with pytest.raises(TensorError):
        known_dtype(0, "x")
