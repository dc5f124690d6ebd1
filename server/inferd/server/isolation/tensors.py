"""Arrays into an arena and out again: each is told by eight or so integers, its bytes lie in shared memory.

    index, element type, arena, offset, bytes, rank, size, size, ...

`index` counts the inputs or outputs of a signature. STRING elements lie one after the other, each behind its length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from inferd.backends.api import Array
from inferd.server.isolation.arena import Arena, ArenaError, Inbox, Outbox, Stages, aligned
from inferd.wire.dtypes import DType, dtype_of
from inferd.wire.tensors import TensorError, count_of, decode_strings, encode_strings

_DTYPES = {int(dtype): dtype for dtype in DType}  # asking an enum costs a microsecond
_SMALL = 2048  # below this bytes are cheaper than a view


def put(
    outbox: Outbox, numbers: Mapping[str, int], arrays: Mapping[str, Array], stages: Stages | None = None
) -> tuple[list[int], int | None]:
    """Copies the arrays into an arena, but for those that lie in a stage already. Gives what tells them, and the
    arena's descriptor when it is a new one.

    Raises KeyError for a name without number, TypeError and TensorError for elements that cannot travel.
    """
    told: list[int] = []
    parts: list[tuple[int, int, Array | bytes]] = []
    end = 0
    for name, array in arrays.items():
        dtype = dtype_of(array)
        if stages is not None and (staged := stages.find(array)) is not None:
            told += (numbers[name], dtype, *staged, array.nbytes, array.ndim, *array.shape)
            continue
        if array.dtype.byteorder == ">":
            array = array.astype(dtype.numpy)  # noqa: PLW2901
        part: Array | bytes = encode_strings(name, array) if dtype is DType.STRING else array
        nbytes = len(part) if isinstance(part, bytes) else array.nbytes
        told += (numbers[name], dtype, 0, end, nbytes, array.ndim, *array.shape)
        parts.append((end, nbytes, part))
        end += aligned(nbytes)
    arena, descriptor = outbox.room(end)
    for start, nbytes, part in parts:
        if isinstance(part, bytes):
            arena.memory[start : start + nbytes] = part
        elif nbytes <= _SMALL:
            arena.memory[start : start + nbytes] = part.tobytes()
        else:  # nothing can fail here any more, or a new arena would never be sent
            np.copyto(arena.bytes[start : start + nbytes].view(part.dtype).reshape(part.shape), part)
    return told, descriptor


def take(inbox: Inbox, names: Sequence[str], told: Sequence[int], *, copy: bool) -> dict[str, Array]:
    """The arrays that `told` tells: writable views of arenas, or copies. STRING is always a new array.

    Raises ArenaError for what does not lie in its arena, and where types, shapes and bytes contradict each other.
    """
    found: dict[str, Array] = {}
    at, end = 0, len(told)
    try:
        while at < end:
            index, number, where, start, nbytes, rank = told[at : at + 6]
            at += 6 + rank
            arena = inbox.arena(where)
            shape = tuple(told[at - rank : at])
            if index < 0 or rank < 0 or at > end or start < 0 or nbytes < 0 or start + nbytes > arena.size:
                raise ArenaError("a tensor that lies outside of the shared memory")
            found[names[index]] = _one(arena, _DTYPES[number], shape, start, nbytes, copy)
    except (ValueError, LookupError) as error:
        raise ArenaError(f"a tensor that makes no sense: {error}") from None
    return found


def _one(arena: Arena, dtype: DType, shape: tuple[int, ...], start: int, nbytes: int, copy: bool) -> Array:
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
