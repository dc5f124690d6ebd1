"""Networks of the usual architectures, saved and opened as a server does: proven in every form of torch, and a run of
rows alone and together agrees."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from hypothesis import settings
from support.torch_graphs import Graph, capture, rows_meet
from support.torch_models import open_model
from support.torch_networks import NETWORKS, SCRIPTED

from inferd.backends.api import Signature, TensorSpec
from inferd.backends.torch.io import dtype_from_torch

pytestmark = pytest.mark.heavy
# torch.export takes seconds for some networks: a usual run leaves out those that are like another one. It does not take
# the operators of "quantised" at all; the cases of operators have those in their place.
ALIKE = ("mobilenet", "bert", "gru", "detector", "recogniser") if settings().max_examples <= 100 else ()
CASES = [
    *[(name, "export") for name in NETWORKS if name not in (*ALIKE, "quantised")],
    *[(name, "trace") for name in NETWORKS],
    *[(name, "script") for name in SCRIPTED if name not in ALIKE],
]


def declared(graph: Graph) -> Signature:
    names = [argument.name for argument in graph.captured.forward.schema.arguments[1:]]
    specs = tuple(
        TensorSpec(name, dtype_from_torch(x.dtype), (-1, *x.shape[1:]))
        for name, x in zip(names, graph.inputs, strict=True)
    )
    outputs = tuple(
        TensorSpec(f"output__{number}", dtype_from_torch(y.dtype), (-1, *y.shape[1:]))
        for number, y in enumerate(graph.run(graph.inputs))
    )
    return Signature("serving_default", specs, outputs)


@pytest.mark.parametrize(("name", "language"), CASES)
def test_a_network_is_proven_and_a_run_agrees(name: str, language: str, version: Path) -> None:
    module, inputs = NETWORKS[name]()
    graph = capture(module, inputs, language)
    if language == "export":
        torch.export.save(graph.captured, version / "model.pt2")
        model = open_model(version)
    else:
        torch.jit.save(graph.captured, str(version / "model.pt"))
        model = open_model(version, declared(graph))
    try:
        finding = model.independence(model.signatures[0])  # type: ignore[attr-defined]
        assert finding.proven, str(finding)
    finally:
        model.close()
    assert rows_meet(graph) is None
