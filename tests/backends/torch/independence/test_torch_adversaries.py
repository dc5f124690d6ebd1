"""Models that mix rows are never accepted; honest twins are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from support.torch_graphs import Graph, capture, rows_meet

sys.path.insert(0, str(Path(__file__).parent))
from cases_torch_adversaries import ADVERSARIES, TWINS, Whole

pytestmark = pytest.mark.heavy


def captured(whole: Whole, language: str) -> Graph:
    axes = [*[(0,)] * len(whole.inputs), *[()] * len(whole.shared)]
    return capture(whole.model, (*whole.inputs, *whole.shared), language, axes)


@pytest.mark.parametrize("name", ADVERSARIES)
def test_an_adversary_is_refused(name: str) -> None:
    for language in ADVERSARIES[name].languages:
        finding = captured(ADVERSARIES[name], language).finding()
        assert not finding.proven, language
        assert str(finding)


def test_there_are_enough_in_both_languages() -> None:
    assert sum("export" in whole.languages for whole in ADVERSARIES.values()) >= 60
    assert sum(bool({"trace", "script"} & set(whole.languages)) for whole in ADVERSARIES.values()) >= 60


@pytest.mark.parametrize("name", TWINS)
def test_an_honest_twin_is_proven_and_a_run_agrees(name: str) -> None:
    for language in TWINS[name].languages:
        graph = captured(TWINS[name], language)
        finding = graph.finding()
        assert finding.proven, f"{language}: {finding}"
        if name != "script: CheckedRows":  # it refuses NaN
            assert rows_meet(graph) is None
