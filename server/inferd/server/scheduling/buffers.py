"""Aligned memory for the inputs of batches, reused from batch to batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from inferd.backends.api import Array

_SMALL = 128 * 2**10  # bytes; below this the allocator reuses cached memory itself
_KEPT = 256 * 2**20  # bytes; a larger buffer is used once, because it would be kept for as long as the worker lives
_PAGE = 64  # bytes: a cache line, and the widest vector load


class Buffers:
    """The buffers of one worker, one for each input name. Not thread-safe.

    The arrays from `concatenate`, `copy` and `empty` are valid until the next call for the same input.

    lent   the buffers used since `begin`, by input name. Where an output shares memory with one of them, the buffer
           must be removed with `forget`, or a later batch would change the output.
    """

    def __init__(self, alignment: int = 1, staging: Callable[[int], Array] | None = None) -> None:
        """`alignment`: bytes. `staging(nbytes)` returns memory for large buffers (uint8), such as pinned memory; None:
        ordinary memory."""
        self._alignment = alignment
        self._staging = staging
        self._flat: dict[str, Array] = {}
        self.lent: dict[str, Array] = {}

    def begin(self) -> None:
        """Starts a batch: clears `lent`."""
        self.lent.clear()

    def concatenate(self, name: str, parts: Sequence[Array], rows: int) -> Array:
        """The rows of `parts` one after the other, in a writable array."""
        first = parts[0]
        nbytes = first.nbytes * rows // (first.shape[0] or 1)
        if first.dtype.hasobject or (nbytes < _SMALL and self._alignment <= 16):
            return np.concatenate(parts)
        into = self.empty(name, (rows, *first.shape[1:]), first.dtype)
        np.concatenate(parts, out=into)
        return into

    def copy(self, name: str, array: Array) -> Array:
        """A writable copy."""
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
        """Removes a buffer: it is not used for later batches."""
        self._flat.pop(name, None)


def aligned_bytes(nbytes: int, alignment: int) -> Array:
    """`nbytes` bytes that start at a multiple of `alignment`."""
    raw = np.empty(nbytes + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + nbytes]


def is_aligned(array: Array, alignment: int) -> bool:
    """Whether the array's elements start at a multiple of `alignment` bytes."""
    return alignment <= 1 or array.ctypes.data % alignment == 0
