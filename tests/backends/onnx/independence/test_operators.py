"""Every operator of the analysis has graphs in which rows stay apart and graphs in which they meet."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto
from support.onnx_graphs import analysed, graph, operators_of, rows_meet, session, some_inputs

from inferd.backends.onnx.independence.walker import MIXING as REFUSED
from inferd.backends.onnx.independence.walker import TABLES

sys.path.insert(0, str(Path(__file__).parent))
import cases_exporters  # adds to the lists of cases_operators
import cases_operators

Case = tuple[str, dict[str, Any]]


def labels(cases: list[Case]) -> list[str]:
    return [f"{i}-{body.splitlines()[-1].strip()[:60]}" for i, (body, _) in enumerate(cases)]


def names(model: ModelProto) -> set[str]:
    return operators_of(model)


@pytest.mark.parametrize(("body", "settings"), cases_operators.HONEST, ids=labels(cases_operators.HONEST))
def test_rows_that_stay_apart_are_proven_and_a_run_agrees(body: str, settings: dict[str, Any]) -> None:
    model = graph(body, **settings)
    finding = analysed(model)
    assert finding.proven, str(finding)
    inputs, batched = some_inputs(model)
    assert rows_meet(session(model), inputs, batched) is None


@pytest.mark.parametrize(("body", "settings"), cases_operators.MIXING, ids=labels(cases_operators.MIXING))
def test_rows_that_meet_are_never_proven(body: str, settings: dict[str, Any]) -> None:
    finding = analysed(graph(body, **settings))
    assert not finding.proven
    assert finding.reason


def test_every_operator_has_both_kinds_of_cases() -> None:
    table = set(itertools.chain(*TABLES))
    assert len(table) > 150
    for cases in (cases_operators.HONEST, cases_operators.MIXING):
        covered = set().union(*(names(graph(body, **settings)) for body, settings in cases))
        assert not table - covered
    assert not table & REFUSED.keys()
    assert cases_exporters.Q
