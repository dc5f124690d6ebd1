"""The proof that a batch's rows are independent, from a model's file to what operators see of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from support.onnx_graphs import graph

from inferd.backends.onnx.backend import OnnxBackend
from inferd.backends.registry import Registry
from inferd.server.config.schema import ModelConfig, ServerConfig
from inferd.server.lifecycle.inspection import inspect_repository
from inferd.server.lifecycle.loading.cancellation import Cancellation
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.loading.loader import Loader
from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import ServableId
from inferd.server.repository.disk import VersionOnDisk
from inferd.server.repository.tree import read_tree

MIXES = "m = ReduceMax<keepdims=0>(x)\n y = Sub(x,m)"
UNPROVEN = (
    "unbatched: not proven: output 'y': ReduceMax reduces over the batch axis, at node 'm'; "
    "declare batching.mode: trusted if rows are independent"
)
Load = Callable[..., Servable]


@pytest.fixture
def registry() -> Registry:
    registry = Registry(plugins=[])
    registry.add(OnnxBackend())
    return registry


def write(root: Path, name: str, body: str, inputs: str = "float[n,16] x") -> Path:
    version = root / name / "1"
    version.mkdir(parents=True)
    onnx.save(graph(body, inputs=inputs), str(version / "model.onnx"))
    return version


@pytest.fixture
def load(tmp_path: Path, registry: Registry) -> Iterator[Load]:
    loader = Loader(registry, cpu_threads=1)
    loaded: list[Servable] = []

    def load(body: str, inputs: str = "float[n,16] x", **settings: Any) -> Servable:
        version = write(tmp_path, f"m{len(loaded)}", body, inputs)
        disk = VersionOnDisk(1, version, read_tree(version))
        request = LoadRequest(ServableId(f"m{len(loaded)}", 1), 1, disk, ModelConfig(**settings))
        loaded.append(loader.load(request, Cancellation()))
        return loaded[-1]

    yield load
    for servable in loaded:
        loader.unload(servable)


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_the_graph_decides_also_in_a_worker_process(load: Load, isolation: str) -> None:
    assert load("y = Relu(x)", isolation=isolation).batching == "up to 32 rows"
    assert load(MIXES, isolation=isolation).batching == UNPROVEN


def test_a_declaration_beats_the_proof(load: Load) -> None:
    declared = load(MIXES, batching={"mode": "trusted"}).batching
    assert declared.startswith("up to 32 rows (declared, but the analysis of its graph says: output 'y': ReduceMax")
    assert load("y = Relu(x)", batching={"mode": "off"}).batching == "unbatched: batching.mode is off"


def reshaped(shape: list[int], own: list[int]) -> list[dict[str, Any]]:
    tensor = {"dtype": "FP32", "shape": shape, "reshape": own}
    return [{"inputs": [{"name": "x", **tensor}], "outputs": [{"name": "y", **tensor}]}]


def test_a_reshape_that_keeps_the_batch_axis_keeps_the_proof(load: Load) -> None:
    servable = load("y = Relu(x)", signatures=reshaped([-1, 4, 4], [-1, 16]))
    assert servable.signatures["serving_default"].inputs[0].shape == (-1, 4, 4)
    assert servable.batching == "up to 32 rows"
    assert load(MIXES, signatures=reshaped([-1, 4, 4], [-1, 16])).batching == UNPROVEN


def test_a_reshape_that_moves_the_batch_axis_is_unbatched(load: Load) -> None:
    assert load("y = Relu(x)", "float[1,n] x", signatures=reshaped([-1], [1, -1])).max_batch_size == 0


def test_inspection_says_what_would_be_unbatched(tmp_path: Path, registry: Registry) -> None:
    write(tmp_path, "mixing", MIXES)
    write(tmp_path, "proven", "y = Relu(x)")
    write(tmp_path, "declared", MIXES)
    (tmp_path / "declared" / "model.yaml").write_text("batching: {mode: trusted}\n")
    config = ServerConfig(repository={"roots": (str(tmp_path),)})
    notes = {f.model: f.notes for f in inspect_repository(config, registry) if f.version is not None}
    assert notes["mixing"] == (UNPROVEN,)
    assert notes["proven"] == ()
    (declared,) = notes["declared"]
    assert declared.startswith(
        "batched because that is declared, but the analysis of its graph says: output 'y': ReduceMax"
    )
