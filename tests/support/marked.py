"""Tiny models whose answers identify the version: y = x + marker, for each framework, in files of any size."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
WIDTH = 4
BACKENDS = ("onnx", "torch", "tensorflow")
TORCH_YAML = """
signatures:
  - inputs: [{name: x, dtype: FP32, shape: [-1, 4]}]
    outputs: [{name: y, dtype: FP32, shape: [-1, 4]}]
"""


def write_version(backend: str, directory: Path, marker: float, ballast: int = 0) -> None:
    """Writes a version directory whose model adds `marker`. `ballast`: the artefact is about so many bytes larger."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = np.random.default_rng(int(marker)).normal(size=(max(1, ballast // 16), WIDTH)).astype(np.float32)
    {"onnx": _onnx, "torch": _torch, "tensorflow": _tensorflow}[backend](directory, np.float32(marker), weights)


def prepare_model(backend: str, repository: Path, model: str, yaml: str = "") -> Path:
    """Makes the model's directory, with a model.yaml that declares what the artefact does not describe."""
    directory = repository / model
    directory.mkdir(parents=True, exist_ok=True)
    text = (TORCH_YAML if backend == "torch" else "") + yaml
    if text:
        (directory / "model.yaml").write_text(text)
    return directory


def publish(backend: str, model: Path, version: int, marker: float, ballast: int = 0) -> None:
    """Publishes a version in the recommended way: written under a name that is no version number, then renamed."""
    hidden = model / f".tmp-{version}"
    write_version(backend, hidden, marker, ballast)
    hidden.rename(model / str(version))


def slow_onnx(directory: Path, turns: int) -> None:
    """Writes a model y = x that first runs `turns` iterations of a loop, which no optimiser removes."""
    from onnx import TensorProto, helper, save

    directory.mkdir(parents=True, exist_ok=True)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Sin", ["before"], ["turned"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("turned", TensorProto.FLOAT, None),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Loop", ["turns", "", "x"], ["last"], body=body),
            helper.make_node("Mul", ["last", "zero"], ["nothing"]),
            helper.make_node("Add", ["x", "nothing"], ["y"]),
        ],
        "slow",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])],
        [
            helper.make_tensor("turns", TensorProto.INT64, [], [turns]),
            helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
        ],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), directory / "model.onnx")


def _onnx(directory: Path, marker: np.float32, weights: Array) -> None:
    from onnx import TensorProto, helper, numpy_helper, save

    # The graph adds the ballast's first row, multiplied by zero: so no tool drops the ballast.
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["ballast", "first"], ["row"], axis=0),
            helper.make_node("Mul", ["row", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "marker"], ["offset"]),
            helper.make_node("Add", ["x", "offset"], ["y"]),
        ],
        "marked",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])],
        [
            numpy_helper.from_array(weights, "ballast"),
            numpy_helper.from_array(np.array(0, np.int64), "first"),
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
            numpy_helper.from_array(np.array(marker, np.float32), "marker"),
        ],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), directory / "model.onnx")


def _torch(directory: Path, marker: np.float32, weights: Array) -> None:
    import torch

    class Marked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("marker", torch.tensor(marker))
            self.register_buffer("ballast", torch.from_numpy(weights))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.marker + 0.0 * self.ballast[0]

    torch.jit.script(Marked()).save(str(directory / "model.pt"))


def _tensorflow(directory: Path, marker: np.float32, weights: Array) -> None:
    import tensorflow as tf

    class Marked(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.marker = tf.Variable(marker)
            self.ballast = tf.Variable(weights)

        @tf.function(input_signature=[tf.TensorSpec([None, WIDTH], tf.float32, "x")])
        def __call__(self, x: Any) -> dict[str, Any]:
            return {"y": x + self.marker + 0.0 * self.ballast[0]}

    module = Marked()
    work = directory.parent / f".saving-{directory.name}"
    tf.saved_model.save(module, str(work), signatures={"serving_default": module.__call__})
    for path in sorted(work.rglob("*"), reverse=True):  # the target may have files already: each is replaced
        if path.is_file():
            target = directory / path.relative_to(work)
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
    shutil.rmtree(work)
