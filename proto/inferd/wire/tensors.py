"""Arrays to and from raw bytes: little-endian, row-major, no padding; strings each behind a uint32 length.

Decoding copies nothing: arrays are read-only, maybe unaligned views of the received message. Encoding copies an array
only when its bytes do not already lie in wire order; `raw` gives a buffer to be joined into the message.

Errors, all of them fit for the caller's eyes:

    WireError              ValueError
    ├── TensorError        a tensor's element type, shape and bytes do not fit together; names the tensor
    └── MessageError       not a well-formed message
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
MAX_RANK = 32  # numpy 1.26's own limit; newer ones allow 64
# Of inputs and of outputs in a message, and of parameters in a place. Nobody has as many; without a bound a message of
# two-byte fields would keep whoever reads it busy for half a minute.
MOST_FIELDS = 4096
MOST_PARAMETERS = 256
_MAX_BYTES = 2**63 - 1
_REFERENCE = 8  # bytes of a string's place in an array
SMALL = 4096  # below this a copy is cheaper than a view
_LENGTH = struct.Struct("<I")


class WireError(ValueError):
    """What came over the wire, or is meant to go over it, is wrong. `request_id` is that of the message it was found
    in, where it could be read."""

    request_id = ""


class TensorError(WireError):
    """Element type, shape and bytes of a tensor do not fit together."""


class MessageError(WireError):
    """Not a well-formed message."""


def known_dtype(number: int, name: str) -> DType:
    """The element type with this number. Raises TensorError."""
    try:
        return DType(number)
    except ValueError:
        known = ", ".join(f"{d.name} = {int(d)}" for d in DType)
        raise TensorError(f"tensor {name!r}: unknown element type {number}; expected one of {known}") from None


def check_rank(rank: int, name: str) -> None:
    """Raises TensorError for more than MAX_RANK dimensions."""
    if rank > MAX_RANK:
        raise TensorError(f"tensor {name!r}: expected at most {MAX_RANK} dimensions, got {rank}")


def check_fields(what: str, count: int, most: int = MOST_FIELDS) -> None:
    """Raises MessageError for more of something than a message may have."""
    if count > most:
        raise MessageError(f"expected at most {most} {what}, got {count}")


def count_of(shape: Sequence[int], itemsize: int, name: str) -> int:
    """Number of elements of a tensor of this shape. Raises TensorError for a negative dimension, for more than MAX_RANK
    dimensions, and where the size in bytes, zeros left aside, passes int64 (numpy could not even view it)."""
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
    """The tensor whose raw bytes are `data[start:end]`, as a read-only view of `data`.

    STRING makes a new object array of bytes. Raises TensorError, naming the tensor, what was expected and what came;
    ImportError for BF16 without ml_dtypes.
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
    """A read-only array over `count` elements of `data` from byte `start` on; the caller has checked the size."""
    if count == 0:  # numpy refuses to view nothing
        empty = np.empty(shape, numpy)
        empty.flags.writeable = False
        return empty
    return np.frombuffer(data, numpy, count, start).reshape(shape)


def valid_bool(array: Array) -> bool:
    """Whether every byte of a BOOL array is 0 or 1."""
    return array.size == 0 or int(array.view(np.uint8).max()) <= 1


def decode_strings(name: str, shape: tuple[int, ...], count: int, data: bytes, *, start: int, end: int) -> Array:
    """STRING elements from `data[start:end]`: exactly `count`, each behind its length. Raises TensorError."""
    size = end - start
    if size < 4 * count:  # before anything of the claimed size is allocated
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
    """The element type as which an array travels. Raises TensorError for one that cannot."""
    try:
        return dtype_of(array)
    except TypeError as error:
        raise TensorError(f"tensor {name!r}: {error}") from None


def raw(name: str, array: Array, dtype: DType) -> Buffer:
    """The raw bytes of an array, as something that `bytes.join` takes and that has a `len` in bytes: a view where the
    elements already lie in wire order and copying them would cost, else a copy. Raises TensorError for elements of an
    object array that are neither bytes nor str."""
    if dtype is DType.STRING:
        return encode_strings(name, array)
    kind = array.dtype
    if kind.byteorder == ">":
        array = array.astype(kind.newbyteorder("<"))
    if array.nbytes <= SMALL:
        return array.tobytes()
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    return array.reshape(-1).view(np.uint8).data


def encode_strings(name: str, array: Array) -> bytes:
    """Length-prefixed elements in row-major order; str is written as UTF-8. Raises TensorError."""
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
    """The elements of a batch as they lie in memory, in `count` equal shares."""
    data = array.tobytes()
    size = len(data) // count
    return [data[start : start + size] for start in range(0, count * size, size)] if size else [b""] * count


def parts_of(outputs: Mapping[str, Array], rows: int) -> Iterator[dict[str, Array]]:
    """A batch's outputs, `rows` rows at a time, as views."""
    total = next(iter(outputs.values())).shape[0]
    for start in range(0, total, rows):
        yield {name: array[start : start + rows] for name, array in outputs.items()}
