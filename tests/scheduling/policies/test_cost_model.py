"""The cost curve: what it learns, how it limits outliers, and which batch size it recommends."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.server.scheduling.policies.cost_model import CostCurve

MS = 1e-3


def learnt(per_row, fixed, sizes, rounds=10):
    curve = CostCurve()
    for _ in range(rounds):
        for rows in sizes:
            curve.ran(rows, per_row * rows + fixed)
    return curve


def test_nothing_is_known_before_the_first_batch():
    curve = CostCurve()
    assert curve.seconds(5) == 0
    assert curve.line is None
    assert curve.enough(32) == 32


def test_the_line_is_found():
    curve = learnt(2 * MS, 10 * MS, (1, 4, 32))
    assert curve.line == pytest.approx((2 * MS, 10 * MS))
    for rows in (1, 2, 8, 32, 100):
        assert curve.seconds(rows) == pytest.approx(2 * MS * rows + 10 * MS)


def test_with_one_size_each_coefficient_gets_half():
    curve = learnt(1 * MS, 0, (8,))
    assert curve.seconds(8) == pytest.approx(8 * MS)
    assert curve.seconds(1) == pytest.approx(4.5 * MS)
    assert curve.enough(32) == 32


def test_a_constant_cost_per_row_needs_no_large_batch():
    assert learnt(2 * MS, 0, (1, 8, 32)).enough(32) == 1
    assert learnt(2 * MS, 1 * MS, (1, 8, 32)).enough(32) == 8


def test_a_constant_cost_per_batch_needs_the_largest_batch():
    assert learnt(0, 5 * MS, (1, 8, 32)).enough(32) == 32
    assert learnt(0, 5 * MS, (1, 8, 20)).enough(24) == 24


def test_one_outlier_is_not_believed():
    curve = learnt(1 * MS, 4 * MS, (1, 4, 16))
    before = curve.seconds(16)
    curve.ran(16, 5.0)
    assert curve.seconds(16) < 1.2 * before


def test_a_model_that_has_become_slower_is_found_out():
    curve = learnt(1 * MS, 0, (4, 16))
    for _ in range(60):
        curve.ran(16, 160 * MS)
    assert curve.seconds(16) == pytest.approx(160 * MS, rel=0.1)


def test_a_slow_first_batch_is_soon_forgotten():
    curve = CostCurve()
    curve.ran(8, 2.0)
    for _ in range(40):
        curve.ran(8, 10 * MS)
    assert curve.seconds(8) == pytest.approx(10 * MS, rel=0.1)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4096), st.floats(0, 100)), min_size=1, max_size=60), st.integers(1, 512))
def test_the_curve_stays_within_bounds(batches, limit):
    curve = CostCurve()
    for rows, seconds in batches:
        curve.ran(rows, seconds)
    longest = max(seconds for _, seconds in batches)
    assert len(curve._classes) <= 13
    assert 1 <= curve.enough(limit) <= limit
    for rows, _ in batches:
        assert 0 <= curve.seconds(rows) <= 4 * longest * 2 + 1e-9
    per_row, fixed = curve.line
    assert per_row >= 0
    assert fixed >= 0
