"""Every operator of the LiteRT analysis has graphs in which rows stay apart and graphs in which they meet."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ai_edge_litert import schema_py_generated
from support.litert_graphs import analysed, operators_of, rows_meet, some_inputs, written

from inferd.backends.litert import schema
from inferd.backends.litert.independence.walker import MIXING as REFUSED
from inferd.backends.litert.independence.walker import TABLES

sys.path.insert(0, str(Path(__file__).parent))
from cases_litert_operators import HONEST, MIXING, Case


def labels(cases: Sequence[Case]) -> list[str]:
    return [f"{i}-{operator}" for i, (operator, _, _) in enumerate(cases)]


@pytest.mark.parametrize(("operator", "body", "inputs"), HONEST, ids=labels(HONEST))
def test_rows_that_stay_apart_are_proven_and_a_run_agrees(operator: str, body: Any, inputs: Any) -> None:
    content = written(body, *inputs)
    finding = analysed(content)
    assert finding.proven, str(finding)
    assert rows_meet(content, some_inputs(content)) is None


@pytest.mark.parametrize(("operator", "body", "inputs"), MIXING, ids=labels(MIXING))
def test_rows_that_meet_are_never_proven(operator: str, body: Any, inputs: Any) -> None:
    content = written(body, *inputs)
    finding = analysed(content)
    assert not finding.proven
    assert finding.reason
    assert operator in operators_of(content)


def test_every_operator_has_both_kinds_of_cases() -> None:
    table = set(itertools.chain(*TABLES))
    assert len(table) > 100
    for cases in (HONEST, MIXING):
        assert not table - {operator for operator, _, _ in cases}
    assert not table & REFUSED.keys()


def test_the_numbers_are_those_of_the_format() -> None:
    for number, name in enumerate(schema.OPERATORS):
        assert getattr(schema_py_generated.BuiltinOperator, name) == number
    for number, name in enumerate(schema.ELEMENT_TYPES):
        assert getattr(schema_py_generated.TensorType, name) == number
    for number, name in schema.UNIONS["BuiltinOptions"].items():
        assert getattr(schema_py_generated.BuiltinOptions, name) == number
