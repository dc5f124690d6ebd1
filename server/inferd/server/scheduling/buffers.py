"""Memory in which batches are put together: aligned, and used again from batch to batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from inferd.backends.api import Array

_SMALL = 128 * 2**10  # below this the allocator hands the same warm memory out again by itself
_KEPT = 256 * 2**20  # a larger buffer is used once: it would sit there for ever
_PAGE = 64  # bytes: a cache line, and the widest vector load


class Buffers:
    """One worker's buffers, one per input. Not thread-safe.

    What `concatenate` and `empty` give is valid until the next call for the same input. `lent` are those given out
    since `begin`: an output that shares memory with one of them must take it away (`forget`), or a later batch would
    change it.
    """

    def __init__(self, alignment: int = 1, staging: Callable[[int], Array] | None = None) -> None:
        """`staging(nbytes)` gives memory for large buffers (uint8); None: ordinary, aligned memory."""
        self._alignment = alignment
        self._staging = staging
        self._flat: dict[str, Array] = {}
        self.lent: dict[str, Array] = {}

    def begin(self) -> None:
        self.lent.clear()

    def concatenate(self, name: str, parts: Sequence[Array], rows: int) -> Array:
        """The rows of `parts`, one after the other, in an array that may be written to."""
        first = parts[0]
        nbytes = first.nbytes * rows // (first.shape[0] or 1)
        if first.dtype.hasobject or (nbytes < _SMALL and self._alignment <= 16):
            return np.concatenate(parts)
        into = self.empty(name, (rows, *first.shape[1:]), first.dtype)
        np.concatenate(parts, out=into)
        return into

    def copy(self, name: str, array: Array) -> Array:
        """The same values in an array that may be written to."""
        if array.dtype.hasobject or (array.nbytes < _SMALL and self._alignment <= 16):
            return array.copy()
        into = self.empty(name, array.shape, array.dtype)
        into[...] = array
        return into

    def empty(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An aligned array with undefined content."""
        if dtype.hasobject:
            return np.empty(shape, dtype)
        count = 1
        for size in shape:
            count *= size
        nbytes = count * dtype.itemsize
        flat = self._flat.get(name)
        if flat is None or flat.nbytes < nbytes:
            staging = self._staging
            flat = aligned_bytes(nbytes, max(self._alignment, _PAGE)) if staging is None else staging(nbytes)
            if nbytes <= _KEPT:
                self._flat[name] = flat
        self.lent[name] = flat
        return flat[:nbytes].view(dtype).reshape(shape)

    def forget(self, name: str) -> None:
        """Gives a buffer away: it is never used again here."""
        self._flat.pop(name, None)


def aligned_bytes(nbytes: int, alignment: int) -> Array:
    """`nbytes` bytes that start at a multiple of `alignment`."""
    raw = np.empty(nbytes + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + nbytes]


def is_aligned(array: Array, alignment: int) -> bool:
    """Whether the array's elements start at a multiple of `alignment` bytes."""
    return alignment <= 1 or array.ctypes.data % alignment == 0
