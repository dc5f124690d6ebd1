"""The soak with a few reloads, and its definition of growth."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos.soak import MIB, Sample, growth, soak

pytestmark = pytest.mark.timeout(300)


def steady(count: int = 30, **slopes: int) -> list[Sample]:
    return [
        Sample(
            float(i),
            200 * MIB + slopes.get("resident", 0) * i,
            40 + slopes.get("descriptors", 0) * i,
            20 + slopes.get("threads", 0) * i,
        )
        for i in range(count)
    ]


def test_growth_is_reported() -> None:
    assert growth(steady()) == []
    assert "resident grew from" in growth(steady(resident=3 * MIB))[0]
    assert "more than 8" in growth(steady(descriptors=1))[0]
    assert "threads grew" in growth(steady(threads=1))[0]


def test_a_warm_up_is_not_reported_as_growth() -> None:
    first = [Sample(0.0, 10 * MIB, 1, 1)] * 10
    assert growth([*first, *steady(20)]) == []


def test_a_soak_that_is_too_short_is_reported() -> None:
    assert "too short" in growth(steady(2))[0]


def test_a_dozen_reloads_lose_no_request_descriptor_or_thread(tmp_path: Path) -> None:
    """With one framework only; `make soak` has all three. Memory is not checked, because this is all warm-up."""
    found = soak(tmp_path / "stage", seconds=0.0, pause=0.0, reloads=12, backends=("onnx",))
    faults = [fault for fault in found.faults if not fault.startswith("resident grew")]
    assert not faults, faults
    assert found.reloads == 12
    assert found.isolated == 4
    assert found.answered > 200
