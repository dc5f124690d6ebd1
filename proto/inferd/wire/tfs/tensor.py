"""Decodes a TensorProto by the rules of TensorFlow's tensor.cc."""

from __future__ import annotations

from typing import Any

import numpy as np

from inferd.tfs.v1 import tensor_pb2 as pb
from inferd.wire.dtypes import DType
from inferd.wire.numbers import from_integers
from inferd.wire.reader import Unrecognised, read_varint
from inferd.wire.tensors import Array, TensorError, check_rank, count_of, decode
from inferd.wire.tfs.dtypes import DTYPE, FIELD

# A TensorProto may have fewer values than elements: the last value, or zero, fills the rest. So a small message could
# make the server allocate any amount of memory. This is the bound, in bytes for each message.
MAX_FILLED = 64 * 2**20
_CONTENT = "tensor_content"
_VALUES = frozenset(
    found.name for found in pb.TensorProto.DESCRIPTOR.fields if found.name == _CONTENT or found.name.endswith("_val")
)


class Filling:
    """Counts the bytes that the tensors of one message are filled up with. Not thread-safe."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MAX_FILLED

    def take(self, name: str, shape: tuple[int, ...], count: int, given: int, size: int) -> None:
        """Counts `size` bytes for the tensor `name`, which has `count` elements and `given` values. Raises TensorError
        if the message's tensors exceed MAX_FILLED."""
        if size > self._left:
            raise TensorError(
                f"tensor {name!r}: expected {count} values for shape {list(shape)}, got {given}; what is filled up may "
                f"take {MAX_FILLED} bytes at most, in all tensors of a message"
            )
        self._left -= size


def array_of(name: str, tensor: pb.TensorProto, filling: Filling | None = None) -> Array:
    """The tensor as a read-only array (STRING: an object array of bytes). Raises TensorError; the message names the
    tensor.

    If tensor_content is not empty, its size must fit exactly. Otherwise the values come from the field of the element
    type: missing ones equal the last one, or zero if there is none. Everything that TensorFlow would drop or cut is
    refused instead: a second field with values, surplus values, numbers that the element type cannot hold.
    """
    dtype = _dtype(name, tensor.dtype)
    shape = _shape(name, tensor.tensor_shape)
    count = count_of(shape, dtype.itemsize, name)
    values = getattr(tensor, FIELD[dtype])
    _check_fields(name, dtype, tensor)
    if tensor.tensor_content:
        return _content(name, dtype, shape, count, tensor.tensor_content)
    if len(values) > count:
        raise TensorError(f"tensor {name!r}: expected {count} values for shape {list(shape)}, got {len(values)}")
    if len(values) < count:
        (filling or Filling()).take(name, shape, count, len(values), count * max(dtype.itemsize, 8))
    try:
        array = _typed(dtype, values, count, f"tensor {name!r}")
    except ImportError as error:
        raise TensorError(f"tensor {name!r}: {error}") from None
    array = array.reshape(shape)
    array.flags.writeable = False
    return array


def _dtype(name: str, number: int) -> DType:
    dtype = DTYPE.get(number)
    if dtype is None:
        known = pb.DataType.DESCRIPTOR.values_by_number.get(number)
        called = known.name if known is not None else str(number)
        served = ", ".join(pb.DataType.Name(n) for n in sorted(DTYPE))
        raise TensorError(f"tensor {name!r}: element type {called} is not served; expected one of {served}")
    return dtype


def _shape(name: str, shape: pb.TensorShapeProto) -> tuple[int, ...]:
    if shape.unknown_rank:
        raise TensorError(f"tensor {name!r}: expected a shape, got one of unknown rank")
    check_rank(len(shape.dim), name)
    return tuple(dim.size for dim in shape.dim)


def _check_fields(name: str, dtype: DType, tensor: pb.TensorProto) -> None:
    """Raises TensorError unless all values are in one field: tensor_content, or that of the element type."""
    given = [found.name for found, _ in tensor.ListFields() if found.name in _VALUES]
    if len(given) > 1:
        raise TensorError(f"tensor {name!r}: expected values in one field, got them in {', '.join(given)}")
    if given and given[0] not in (FIELD[dtype], _CONTENT):
        called = pb.DataType.Name(tensor.dtype)
        raise TensorError(
            f"tensor {name!r}: expected the values of {called} in {FIELD[dtype]} or {_CONTENT}, got them in {given[0]}"
        )


def _content(name: str, dtype: DType, shape: tuple[int, ...], count: int, content: bytes) -> Array:
    if dtype is DType.STRING:
        array = _strings(name, count, content).reshape(shape)
        array.flags.writeable = False
        return array
    try:
        return decode(name, dtype, shape, content)
    except ImportError as error:
        raise TensorError(f"tensor {name!r}: {error}") from None


def _strings(name: str, count: int, content: bytes) -> Array:
    # The content is `count` lengths as varints, followed by the bytes of all strings.
    if len(content) < count:  # checked before an array of the claimed size is allocated
        raise TensorError(f"tensor {name!r}: expected at least {count} bytes for {count} strings, got {len(content)}")
    lengths: list[int] = []
    i = 0
    try:
        for _ in range(count):
            length, i = read_varint(content, i)
            lengths.append(length)
    except (IndexError, Unrecognised):
        raise TensorError(f"tensor {name!r}: expected {count} string lengths as varints, got {len(lengths)}") from None
    if len(content) - i != sum(lengths):
        raise TensorError(f"tensor {name!r}: expected {sum(lengths)} bytes of strings, got {len(content) - i}")
    array = np.empty(count, object)
    for number, length in enumerate(lengths):
        array[number] = content[i : i + length]
        i += length
    return array


def _typed(dtype: DType, values: Any, count: int, where: str) -> Array:
    given = len(values)
    if dtype is DType.STRING:
        array: Array = np.full(count, values[given - 1] if given else b"", object)
        array[:given] = values[:given]
        return array
    bits = dtype in (DType.FP16, DType.BF16)  # half_val has the bits of each number, in an int32
    numpy = np.dtype(np.uint16) if bits else dtype.numpy
    array = np.empty(count, numpy)
    if given:
        if bits:
            array[:given] = from_integers(values, DType.UINT16, f"{where}: half_val")
        elif dtype.itemsize < 4 and dtype is not DType.BOOL:
            array[:given] = from_integers(values, dtype, where)
        else:
            array[:given] = np.fromiter(values, numpy, given)
        array[given:] = array[given - 1]
    else:
        array[:] = 0
    return array.view(dtype.numpy)
