"""Pseudo-random values that are the same in every process. Good enough for samples and warm-up only.

numpy's generators would load libraries of 2.6 MB, which a server would keep for the few rows that a load needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from inferd.backends.api import Array

_STEP = 0x9E3779B97F4A7C15  # the generator splitmix64: a counter, whose bits are mixed by shifts and multiplications
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def seeded_bits(shape: Sequence[int], *seed: int) -> Array:
    """UINT64 values with pseudo-random bits. Equal seeds give equal values."""
    start = int.from_bytes(blake2b(repr(seed).encode(), digest_size=8).digest(), "little")
    bits = np.arange(math.prod(shape), dtype=np.uint64)
    bits *= np.uint64(_STEP)
    bits += np.uint64(start)
    for shift, factor in _MIX:
        bits ^= bits >> np.uint64(shift)
        bits *= np.uint64(factor)
    bits ^= bits >> np.uint64(31)
    return bits.reshape(shape)


def seeded_floats(shape: Sequence[int], *seed: int) -> Array:
    """FP64 values in [0, 1)."""
    return np.asarray((seeded_bits(shape, *seed) >> np.uint64(11)) * 2.0**-53)


def seeded_integers(below: int, shape: Sequence[int], *seed: int) -> Array:
    """INT64 values from 0 to `below` - 1; `below` is at most 256."""
    return np.asarray((seeded_bits(shape, *seed) >> np.uint64(56)).astype(np.int64) % below)
