"""Every operator of the analysis has functions in which rows stay apart and functions in which they meet."""

from __future__ import annotations

import itertools
import sys
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("torch")

from support.torch_graphs import Graph, capture, hostile, rows_meet

from inferd.backends.torch.independence.operators import MIXING, TABLES

sys.path.insert(0, str(Path(__file__).parent))
import cases_torch_operators
from cases_torch_operators import Case

pytestmark = pytest.mark.heavy
CHUNKS = 20  # there are more than a thousand cases


@cache
def graphs(case: Case) -> tuple[Graph, ...]:
    axes = case.axes or [*[(0,)] * len(case.inputs), *[()] * len(case.shared)]
    return tuple(capture(case.function, (*case.inputs, *case.shared), language, axes) for language in case.languages)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_rows_that_stay_apart_are_proven_and_a_run_agrees(chunk: int) -> None:
    for example in cases_torch_operators.HONEST[chunk::CHUNKS]:
        for graph in graphs(example):
            finding = graph.finding()
            assert finding.proven, f"{example.label}: {finding}"
            assert rows_meet(graph, hostile(graph, 3)) is None, example.label


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_rows_that_meet_are_never_proven(chunk: int) -> None:
    for example in cases_torch_operators.MIXING[chunk::CHUNKS]:
        for graph in graphs(example):
            finding = graph.finding()
            assert not finding.proven, example.label
            assert finding.reason, example.label


def test_every_operator_has_both_kinds_of_cases() -> None:
    table = set(itertools.chain(*TABLES))
    assert len(table) > 350
    for cases in (cases_torch_operators.HONEST, cases_torch_operators.MIXING):
        covered = set().union(*(graph.operators() for case in cases for graph in graphs(case)))
        assert not table - covered
    assert not table & MIXING.keys()
