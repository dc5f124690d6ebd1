"""What the analysis says of a served model: in a worker process, of optional inputs, of equal sizes, in words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from support.torch_graphs import capture
from support.torch_models import open_model, script, signature, spec
from torch import Tensor, nn

from inferd.backends.api import Analysable, Independence, OpenRequest, Signature
from inferd.backends.torch.backend import TorchBackend
from inferd.wire.dtypes import DType

sys.path.insert(0, str(Path(__file__).parents[2]))
from case_isolated import OneProcessEach

pytestmark = pytest.mark.heavy
X, Y = [spec("x")], [spec("y", None)]


def found(version: Path, module: nn.Module, *declared: Signature) -> Independence:
    script(version, module)
    model = open_model(version, *declared)
    try:
        assert isinstance(model, Analysable)
        finding = model.independence(model.signatures[0])
        assert finding is not None
        return finding
    finally:
        model.close()


class Center(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


def test_a_model_in_a_worker_process_is_analysed_there(version: Path) -> None:
    script(version, Center())
    backend = OneProcessEach(TorchBackend())
    model = backend.open(OpenRequest("m", 1, version, version / "model.pt", (signature(X, Y),)))
    try:
        assert isinstance(model, Analysable)
        assert str(model.independence(model.signatures[0])) == (
            "output 'y': aten::mean reduces over the batch axis, at node '%7: return x - x.mean(0)'"
        )
    finally:
        model.close()


def test_without_shapes_nothing_is_proven(version: Path) -> None:
    assert str(found(version, nn.ReLU())) == "no input has an open first dimension"


class Optional(nn.Module):
    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        return x - x.mean(0) if z is None else x - z


class OptionalRight(nn.Module):
    def forward(self, x: Tensor, z: Tensor | None = None, k: int = 3) -> Tensor:
        return x * k if z is None else x - z


def test_every_combination_of_optional_inputs_must_be_proven(version: Path) -> None:
    declared = signature([*X, spec("z")], Y)
    assert "aten::mean reduces over the batch axis" in str(found(version, Optional(), declared))


def test_optional_inputs_and_numbers_may_be_left_out(version: Path) -> None:
    declared = signature([*X, spec("z"), spec("k", (), DType.INT64)], Y)
    assert found(version, OptionalRight(), declared).proven


def test_a_number_is_not_one_for_each_row(version: Path) -> None:
    declared = signature([*X, spec("z"), spec("k", (-1,), DType.INT64)], Y)
    assert "is one value for all rows" in str(found(version, OptionalRight(), declared))


class Pair(nn.Module):
    """[N, T, 4] to [N, T, 2, 2] with the T of the other input: right only where the two are equal."""

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return (x + z.unsqueeze(-1)).reshape(-1, x.shape[1], 2, 2)


def test_equal_dimensions_are_named_if_the_proof_needs_them() -> None:
    time, rows = torch.export.Dim("time", min=2, max=64), torch.export.Dim("rows", min=2, max=64)
    inputs = torch.zeros(3, 5, 4), torch.zeros(3, 5)
    shapes = {0: rows, 1: time}
    program = torch.export.export(Pair(), inputs, dynamic_shapes=(shapes, shapes))
    graph = capture(Pair(), inputs, "trace", [(0, 1), (0, 1)])
    finding = type(graph)("export", program, inputs, graph.open).finding()
    assert finding.proven, str(finding)
    assert finding.equal == ((("x", 1), ("z", 1)),)
    assert not graph.finding().proven  # a trace does not tell that they are equal


class Sums(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.total
        self.total.add_(1.0)
        return y


@pytest.mark.parametrize("language", ["export", "trace", "script"])
def test_a_model_that_keeps_state_is_refused(language: str) -> None:
    finding = capture(Sums(), (torch.zeros(3, 2),), language).finding()
    assert not finding.proven
    assert "writes to a tensor of the model" in str(finding)


def test_a_graph_that_never_ends_is_left(version: Path) -> None:
    class Loop(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(10_000_000):
                x = x + 1
            return x

    assert "more than 4096 turns" in str(found(version, Loop(), signature(X, Y)))
