"""Writes arrays to an arena and reads them from it. A message describes each array by integers, its layout:

    index, element type, arena, offset, bytes, rank, size, size, ...

`index` is the number of the input or output in its signature. The elements of a STRING tensor follow each other, each
after its length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from inferd.backends.api import Array
from inferd.server.isolation.arena import Arena, ArenaError, Inbox, Outbox, Stages, aligned
from inferd.wire.dtypes import DType, dtype_of
from inferd.wire.tensors import TensorError, count_of, decode_strings, encode_strings

_DTYPES = {int(dtype): dtype for dtype in DType}  # a look-up in the enum itself costs a microsecond
_SMALL = 2048  # bytes up to which copying through `bytes` is cheaper than through a view


def put(
    outbox: Outbox,
    numbers: Mapping[str, int],
    arrays: Mapping[str, Array],
    stages: Stages | None = None,
    most: int | None = None,
) -> tuple[list[int], int | None]:
    """Copies the arrays to an arena, except those that lie in a stage already. `numbers` gives the index of each name.
    Returns the layouts of all arrays, one after the other, and the arena's descriptor if the arena is new.

    Raises KeyError for a name without a number, TypeError or TensorError for elements that cannot be sent, and
    TensorError for arrays of more than `most` bytes together: nothing is copied then.
    """
    layout: list[int] = []
    parts: list[tuple[int, int, Array | bytes]] = []
    end = 0
    for name, array in arrays.items():
        dtype = dtype_of(array)
        if stages is not None and (staged := stages.find(array)) is not None:
            layout += (numbers[name], dtype, *staged, array.nbytes, array.ndim, *array.shape)
            continue
        if array.dtype.byteorder == ">":
            array = array.astype(dtype.numpy)  # noqa: PLW2901
        part: Array | bytes = encode_strings(name, array) if dtype is DType.STRING else array
        nbytes = len(part) if isinstance(part, bytes) else array.nbytes
        layout += (numbers[name], dtype, 0, end, nbytes, array.ndim, *array.shape)
        parts.append((end, nbytes, part))
        end += aligned(nbytes)
    if most is not None and end > most:
        raise TensorError(f"the outputs take {end} bytes: expected at most {most} (inflight.bytes)")
    arena, descriptor = outbox.reserve(end)
    for start, nbytes, part in parts:
        if isinstance(part, bytes):
            arena.memory[start : start + nbytes] = part
        elif nbytes <= _SMALL:
            arena.memory[start : start + nbytes] = part.tobytes()
        else:  # from `reserve` on nothing may fail: the new arena would never be sent
            np.copyto(arena.bytes[start : start + nbytes].view(part.dtype).reshape(part.shape), part)
    return layout, descriptor


def size_of(layout: Sequence[int]) -> int:
    """The bytes of all arrays that `layout` describes, as far as it makes sense."""
    at = size = 0
    while at + 6 <= len(layout):
        size += max(0, layout[at + 4])
        at += 6 + max(0, layout[at + 5])
    return size


def take(inbox: Inbox, names: Sequence[str], layout: Sequence[int], *, copy: bool) -> dict[str, Array]:
    """The arrays that `layout` describes, by name: writable views of arenas, or copies. STRING is always a copy.

    Raises ArenaError for an array outside of its arena, or if type, shape and size contradict each other.
    """
    found: dict[str, Array] = {}
    at, end = 0, len(layout)
    try:
        while at < end:
            index, number, stage, start, nbytes, rank = layout[at : at + 6]
            at += 6 + rank
            arena = inbox.arena(stage)
            shape = tuple(layout[at - rank : at])
            if index < 0 or rank < 0 or at > end or start < 0 or nbytes < 0 or start + nbytes > arena.size:
                raise ArenaError("a tensor that lies outside of the shared memory")
            found[names[index]] = _array(arena, _DTYPES[number], shape, start, nbytes, copy)
    except (ValueError, LookupError) as error:
        raise ArenaError(f"a tensor that makes no sense: {error}") from None
    return found


def _array(arena: Arena, dtype: DType, shape: tuple[int, ...], start: int, nbytes: int, copy: bool) -> Array:
    try:
        count = count_of(shape, dtype.itemsize, "")
        if dtype is DType.STRING:
            data = arena.memory[start : start + nbytes]
            return decode_strings("", shape, count, data, start=0, end=nbytes).copy()
    except TensorError as error:
        raise ArenaError(str(error)) from None
    if nbytes != count * dtype.itemsize:
        raise ArenaError(f"{nbytes} bytes for {dtype.name} of shape {list(shape)}")
    view: Array = arena.bytes[start : start + nbytes].view(dtype.numpy).reshape(shape)
    return view.copy() if copy else view
