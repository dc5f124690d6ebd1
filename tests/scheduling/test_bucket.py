"""Bucket keys of inputs without a batch axis: requests share a batch only where these inputs are equal."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from inferd.backends.api import Array
from inferd.server.scheduling.bucket import contents


def strings(*items: bytes) -> Array:
    found = np.empty(len(items), object)
    found[:] = items
    return found


@pytest.mark.parametrize("size", [1, 100_000])
def test_equal_arrays_have_equal_contents_and_others_have_others(size: int):
    a, b = b"a" * size, b"b" * size
    for make in (strings, lambda *items: np.frombuffer(b"".join(items), np.uint8)):
        assert contents(make(a, b)) == contents(make(a, b))
        assert contents(make(a, b)) != contents(make(b, a))
    assert contents(strings(a + b, b)) != contents(strings(a, b + b))
    assert contents(strings(a)) != contents(strings(a).reshape(()))


def test_long_contents_are_not_kept():
    for array in (strings(b"a" * 100_000), strings(*[b""] * 10_000), np.zeros(100_000)):
        _, kept = contents(array)
        assert sys.getsizeof(kept) < 1000
