"""Converts arrays to and from raw bytes: little-endian, row-major, without padding; each string after a uint32 length.

Decoding copies nothing, except for strings: arrays are read-only views of the received message and may be unaligned.
Encoding copies an array only if its bytes are not in wire order yet, or if it is small. All functions are thread-safe.

Errors; their messages are written for the caller:

    ValueError
    └── WireError            something that was received, or is to be sent, is wrong
        ├── TensorError      element type, shape and bytes of a tensor do not fit together; names the tensor
        └── MessageError     not a well-formed message
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from inferd.wire.dtypes import DType, dtype_of

Array = np.ndarray[Any, Any]
Buffer = bytes | memoryview
MAX_RANK = 32  # the limit of numpy 1.26; later versions allow 64
# Most inputs and most outputs of a message, and most parameters of a request, an input or an output. No real message
# has so many. Without a bound, reading a message of two-byte fields would take half a minute.
MOST_FIELDS = 4096
MOST_PARAMETERS = 256
_MAX_BYTES = 2**63 - 1
_REFERENCE = 8  # bytes that an object array needs for each string
SMALL = 4096  # bytes: below this size a copy is cheaper than a view
_LENGTH = struct.Struct("<I")


class WireError(ValueError):
    """A received message, or a value that is to be sent, is wrong.

    request_id   the id of the request in which the error was found, "" if it could not be read
    """

    request_id = ""


class TensorError(WireError):
    """Element type, shape and bytes of a tensor do not fit together."""


class MessageError(WireError):
    """Not a well-formed message."""


def known_dtype(number: int, name: str) -> DType:
    """The element type with this number. Raises TensorError for an unknown number; `name` is the tensor's."""
    try:
        return DType(number)
    except ValueError:
        known = ", ".join(f"{d.name} = {int(d)}" for d in DType)
        raise TensorError(f"tensor {name!r}: unknown element type {number}; expected one of {known}") from None


def check_rank(rank: int, name: str) -> None:
    """Raises TensorError if a tensor has more than MAX_RANK dimensions."""
    if rank > MAX_RANK:
        raise TensorError(f"tensor {name!r}: expected at most {MAX_RANK} dimensions, got {rank}")


def check_fields(what: str, count: int, most: int = MOST_FIELDS) -> None:
    """Raises MessageError if a message has more than `most` fields of a sort; `what` names them."""
    if count > most:
        raise MessageError(f"expected at most {most} {what}, got {count}")


def count_of(shape: Sequence[int], itemsize: int, name: str) -> int:
    """The number of elements of a tensor with this shape.

    Raises TensorError for a negative dimension, for more than MAX_RANK dimensions, and if the size in bytes does not
    fit into an int64. That size leaves out dimensions of 0, because numpy refuses such shapes even without elements.
    """
    check_rank(len(shape), name)
    if shape and min(shape) < 0:
        raise TensorError(f"tensor {name!r}: expected every dimension to be 0 or more, got shape {_show(shape)}")
    count = math.prod(shape)
    extent = count or math.prod(size for size in shape if size)
    if extent * (itemsize or _REFERENCE) > _MAX_BYTES:
        raise TensorError(f"tensor {name!r}: shape {_show(shape)} holds more than 2^63 - 1 bytes")
    return count


def decode(
    name: str, dtype: DType, shape: tuple[int, ...], data: bytes, *, start: int = 0, end: int | None = None
) -> Array:
    """The tensor whose raw bytes are `data[start:end]`, as a read-only view of `data`; for STRING, a new read-only
    object array of bytes.

    Raises TensorError; the message names the tensor, what was expected and what was found. Raises ImportError for BF16
    without ml_dtypes.
    """
    size = (len(data) if end is None else end) - start
    itemsize = dtype.itemsize
    count = count_of(shape, itemsize, name)
    if dtype is DType.STRING:
        return decode_strings(name, shape, count, data, start=start, end=start + size)
    if size != count * itemsize:
        raise TensorError(
            f"tensor {name!r}: expected {count * itemsize} bytes for {dtype.name} of shape {_show(shape)}, got {size}"
        )
    array = view(data, dtype.numpy, shape, count, start)
    if dtype is DType.BOOL and not valid_bool(array):
        wrong = int(array.view(np.uint8).max())
        raise TensorError(f"tensor {name!r}: expected BOOL bytes to be 0 or 1, got {wrong}")
    return array


def view(data: bytes, numpy: np.dtype[Any], shape: tuple[int, ...], count: int, start: int) -> Array:
    """A read-only view of `count` elements of `data` from byte `start` on. The caller has checked the size."""
    if count == 0:  # numpy refuses to make a view without elements
        empty = np.empty(shape, numpy)
        empty.flags.writeable = False
        return empty
    return np.frombuffer(data, numpy, count, start).reshape(shape)


def valid_bool(array: Array) -> bool:
    """Whether every byte of a BOOL array is 0 or 1."""
    return array.size == 0 or int(array.view(np.uint8).max()) <= 1


def decode_strings(name: str, shape: tuple[int, ...], count: int, data: bytes, *, start: int, end: int) -> Array:
    """The STRING elements in `data[start:end]`: exactly `count`, each after its length. Raises TensorError."""
    size = end - start
    if size < 4 * count:  # checked before an array of the claimed size is allocated
        raise TensorError(
            f"tensor {name!r}: expected at least {4 * count} bytes for STRING of shape {_show(shape)}, got {size}"
        )
    items: list[bytes] = []
    i = start
    for _ in range(count):
        stop = i + 4
        if stop > end:
            raise TensorError(
                f"tensor {name!r}: expected {count} strings, the bytes end in the length of number {len(items)}"
            )
        length = _LENGTH.unpack_from(data, i)[0]
        i = stop + length
        if i > end:
            raise TensorError(
                f"tensor {name!r}: string number {len(items)} should have {length} bytes, only {end - stop} are left"
            )
        items.append(data[stop:i])
    if i != end:
        raise TensorError(f"tensor {name!r}: expected {i - start} bytes for {count} strings, got {size}")
    array = np.empty(count, object)
    array[:] = items
    array = array.reshape(shape)
    array.flags.writeable = False
    return array


def encodable_dtype(name: str, array: Array) -> DType:
    """The element type with which an array is sent. Raises TensorError if the array cannot be sent; `name` is the
    tensor's."""
    try:
        return dtype_of(array)
    except TypeError as error:
        raise TensorError(f"tensor {name!r}: {error}") from None


def raw(name: str, array: Array, dtype: DType) -> Buffer:
    """The raw bytes of an array, as an object that `bytes.join` accepts and whose `len` is in bytes: a view if the
    array is large and its elements are in wire order, else a copy. Raises TensorError if elements of an object array
    are neither bytes nor str."""
    if dtype is DType.STRING:
        return encode_strings(name, array)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    if array.nbytes <= SMALL:
        return array.tobytes()
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    return array.reshape(-1).view(np.uint8).data


def encode_strings(name: str, array: Array) -> bytes:
    """The elements in row-major order, each after its length; str is encoded as UTF-8. Raises TensorError."""
    pack = _LENGTH.pack
    parts: list[bytes] = []
    for item in array.ravel().tolist():
        if isinstance(item, str):
            try:
                item = item.encode()  # noqa: PLW2901
            except UnicodeEncodeError as error:
                raise TensorError(f"tensor {name!r}: {item!r} cannot be written as UTF-8: {error.reason}") from None
        elif not isinstance(item, bytes):
            raise TensorError(f"tensor {name!r}: expected strings as bytes or str, got {type(item).__name__}")
        if len(item) > 0xFFFFFFFF:
            raise TensorError(f"tensor {name!r}: a string of {len(item)} bytes is longer than 2^32 - 1")
        parts.append(pack(len(item)))
        parts.append(item)
    return b"".join(parts)


def _show(shape: Sequence[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def shares_of(array: Array, count: int) -> list[bytes]:
    """The bytes of a batch's array in row-major order, cut into `count` parts of equal size."""
    data = array.tobytes()
    size = len(data) // count
    return [data[start : start + size] for start in range(0, count * size, size)] if size else [b""] * count


def parts_of(outputs: Mapping[str, Array], rows: int) -> Iterator[dict[str, Array]]:
    """Cuts a batch's outputs along dimension 0 into parts of `rows` rows. The parts are views."""
    total = next(iter(outputs.values())).shape[0]
    for start in range(0, total, rows):
        yield {name: array[start : start + rows] for name, array in outputs.items()}
