"""Seeded values: evenly spread, different for different seeds, and the same in every process."""

from __future__ import annotations

import numpy as np
import pytest

from inferd.server.scheduling.qualification.seeded import seeded_bits, seeded_floats, seeded_integers

MANY = (200, 100)


def test_floats_fill_the_range_evenly() -> None:
    values = seeded_floats(MANY, 3)
    assert values.shape == MANY
    assert values.dtype == np.float64
    counts, _ = np.histogram(values, bins=10, range=(0, 1))
    assert counts.sum() == values.size
    assert counts.min() > 0.9 * values.size / 10


@pytest.mark.parametrize("below", [2, 10, 256])
def test_integers_are_evenly_distributed(below: int) -> None:
    values = seeded_integers(below, MANY, 3)
    assert values.dtype == np.int64
    counts = np.bincount(values.ravel(), minlength=below)
    assert len(counts) == below
    assert counts.min() > 0.5 * values.size / below


def test_values_of_different_seeds_are_uncorrelated() -> None:
    rows = [seeded_floats(MANY, number, row).ravel() for number in range(3) for row in range(3)]
    assert np.abs(np.corrcoef(rows) - np.eye(9)).max() < 0.05
    shared = np.intersect1d(seeded_bits(MANY, 0, 1), seeded_bits(MANY, 1, 0))
    assert not shared.size  # no sequence continues another one


def test_the_values_are_the_same_in_every_process() -> None:
    assert seeded_bits((2,), 0, 1).tolist() == [17134629993395378218, 16368477444082055040]


@pytest.mark.parametrize("shape", [(), (0, 3), (1, 1)])
def test_values_of_any_shape_are_arrays(shape: tuple[int, ...]) -> None:
    for values in (seeded_floats(shape, 1), seeded_integers(2, shape, 1)):
        assert isinstance(values, np.ndarray)
        assert values.shape == shape
