"""Graphs that mix rows are never accepted; honest twins are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.onnx_graphs import analysed, graph, rows_meet, session, some_inputs

sys.path.insert(0, str(Path(__file__).parent))
from cases_adversaries import ADVERSARIES, TWINS
from cases_loops import MIXERS, TURNS

ADVERSARIES = {**ADVERSARIES, **MIXERS}
TWINS = {**TWINS, **TURNS}


@pytest.mark.parametrize("name", ADVERSARIES)
def test_an_adversary_is_refused(name: str) -> None:
    body, settings = ADVERSARIES[name]
    finding = analysed(graph(body, **settings))
    assert not finding.proven
    assert str(finding)


def test_there_are_enough() -> None:
    assert len(ADVERSARIES) >= 60


@pytest.mark.parametrize("name", TWINS)
def test_an_honest_twin_is_proven_and_a_run_agrees(name: str) -> None:
    body, settings = TWINS[name]
    model = graph(body, **settings)
    finding = analysed(model)
    assert finding.proven, str(finding)
    inputs, batched = some_inputs(model)
    assert rows_meet(session(model), inputs, batched) is None
