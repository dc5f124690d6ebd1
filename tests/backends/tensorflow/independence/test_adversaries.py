"""Graphs that mix rows are never accepted; honest twins are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.tf_graphs import analysed, graph, rows_meet, some_inputs

sys.path.insert(0, str(Path(__file__).parent))
from graphs_adversaries import ADVERSARIES, TWINS

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("name", ADVERSARIES)
def test_an_adversary_is_refused(name: str) -> None:
    finding = analysed(graph(*ADVERSARIES[name]))
    assert not finding.proven
    assert str(finding)


def test_there_are_enough() -> None:
    assert len(ADVERSARIES) >= 60


@pytest.mark.parametrize("name", TWINS)
def test_an_honest_twin_is_proven_and_a_run_agrees(name: str) -> None:
    case = graph(*TWINS[name])
    finding = analysed(case)
    assert finding.proven, str(finding)
    assert rows_meet(case, some_inputs(case)) is None
