"""Every operator of the analysis has graphs in which rows stay apart and graphs in which they meet."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.tf_graphs import GraphCase, analysed, graph, rows_meet, some_inputs

from inferd.backends.tensorflow.independence.walker import MIXING as REFUSED
from inferd.backends.tensorflow.independence.walker import TABLES

sys.path.insert(0, str(Path(__file__).parent))
import graphs_along
import graphs_control
import graphs_elementwise
import graphs_layout
from graph_parts import Case

pytestmark = pytest.mark.heavy
_MODULES = (graphs_elementwise, graphs_along, graphs_layout, graphs_control)
HONEST: list[Case] = [case for module in _MODULES for case in module.CASES.honest]
MIXING: list[Case] = [case for module in _MODULES for case in module.CASES.mixing]


def of(cases: list[Case]) -> Any:
    return pytest.mark.parametrize(
        ("function", "inputs"), [case[1:] for case in cases], ids=[case[0] for case in cases]
    )


@pytest.fixture(scope="module")
def made() -> Callable[..., GraphCase]:
    """Makes each graph once."""
    graphs: dict[Any, GraphCase] = {}

    def make(function: Callable[..., Any], inputs: str) -> GraphCase:
        if function not in graphs:
            graphs[function] = graph(function, inputs)
        return graphs[function]

    return make


@of(HONEST)
def test_rows_that_stay_apart_are_proven_and_a_run_agrees(made: Any, function: Any, inputs: str) -> None:
    case = made(function, inputs)
    finding = analysed(case)
    assert finding.proven, str(finding)
    assert rows_meet(case, some_inputs(case)) is None


@of(MIXING)
def test_rows_that_meet_are_never_proven(made: Any, function: Any, inputs: str) -> None:
    finding = analysed(made(function, inputs))
    assert not finding.proven
    assert finding.reason


def test_every_operator_has_both_kinds_of_cases(made: Any) -> None:
    table = set(itertools.chain(*TABLES))
    assert len(table) > 200
    for cases in (HONEST, MIXING):
        covered = set().union(*(made(function, inputs).operators for _, function, inputs in cases))
        assert not sorted(table - covered)
    assert not table & REFUSED.keys()
