"""Fixtures of the backend tests: `case` runs a test once for each backend, `version` is an empty version directory."""

from __future__ import annotations

import importlib.util
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from support.backends import BackendCase, Cannot, load_cases, load_module

CASES = load_cases()


def marks(case: BackendCase) -> list[pytest.MarkDecorator]:
    there = importlib.util.find_spec(case.module) is not None
    absent = pytest.mark.skipif(not there, reason=f"{case.module} is not installed")
    return [absent, pytest.mark.heavy] if case.heavy else [absent]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`case`: every case; `typed_case`: every case with each of its element types."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", [pytest.param(c, id=c.id, marks=marks(c)) for c in CASES])
    if "typed_case" in metafunc.fixturenames:
        pairs = [(c, d) for c in CASES for d in c.dtypes]
        params = [pytest.param((c, d), id=f"{c.id}-{d.name}", marks=marks(c)) for c, d in pairs]
        metafunc.parametrize("typed_case", params)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Skips a test if the framework cannot express the test's model."""
    try:
        return (yield)
    except Cannot as reason:
        pytest.skip(f"this framework has no such model: {reason}")


@pytest.fixture
def version(tmp_path: Path) -> Path:
    directory = tmp_path / "m" / "1"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture(scope="session")
def write_onnx() -> Any:
    """The function that writes small ONNX models. Tests with this fixture need the packages of the ONNX backend."""
    return load_module("case_onnx").write_onnx
