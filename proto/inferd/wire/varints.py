"""Encodes many integers as packed varints at once, for the typed integer fields of a TensorProto."""

from __future__ import annotations

import numpy as np

from inferd.wire.reader import varint
from inferd.wire.tensors import Array

_FEW = 16  # elements: up to this number, numpy's calls cost more than they save
_CHUNK = 65536  # elements that are encoded at once: each needs more than ten bytes of working memory
_SHIFTS = np.arange(0, 70, 7, dtype=np.uint64)
_FIRST = np.uint64(1) << _SHIFTS[1:]  # the smallest number that needs one more byte


def packed_varints(array: Array) -> bytes:
    """The elements of an integer or BOOL array as varints, in row-major order. Negative numbers take ten bytes, as in
    protobuf."""
    flat = array.ravel()
    if flat.size <= _FEW:
        return b"".join([varint(number) for number in flat.tolist()])
    if int(flat.min()) >= 0 and int(flat.max()) < 128:
        return flat.astype(np.uint8).tobytes()
    if flat.dtype.kind != "u":
        flat = flat.astype(np.int64)
    flat = flat.astype(np.uint64)
    return b"".join(_chunk(flat[i : i + _CHUNK]) for i in range(0, flat.size, _CHUNK))


def _chunk(numbers: Array) -> bytes:
    last = np.searchsorted(_FIRST, numbers, side="right")[:, np.newaxis]  # index of each number's last byte
    places = np.arange(10)
    groups = (numbers[:, np.newaxis] >> _SHIFTS).astype(np.uint8) & 127
    groups |= np.where(places < last, 128, 0).astype(np.uint8)
    data: bytes = groups[places <= last].tobytes()
    return data
