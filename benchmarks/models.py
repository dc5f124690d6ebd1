"""Writes the models for the measurements: multi-layer perceptrons of several sizes, float32, batch axis first."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_mlp(path: Path, width: int, layers: int, outputs: int = 10) -> None:
    """Writes an ONNX model x [n, width] -> y [n, outputs] with `layers` hidden layers of `width` units."""
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for i in range(layers):
        weight = (rng.normal(size=(width, width)) / np.sqrt(width)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{i}"))
        nodes += [
            helper.make_node("MatMul", [last, f"w{i}"], [f"m{i}"]),
            helper.make_node("Relu", [f"m{i}"], [f"h{i}"]),
        ]
        last = f"h{i}"
    weights.append(numpy_helper.from_array(rng.normal(size=(width, outputs)).astype(np.float32), "out"))
    nodes.append(helper.make_node("MatMul", [last, "out"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", outputs])],
        weights,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


SIZES = {"tiny": (64, 1), "medium": (512, 4), "compute": (2048, 4)}
"""By name: width and number of hidden layers. The weights take 8 KB, 4 MB and 67 MB."""


def repository(root: Path, yaml: str = "", sizes: tuple[str, ...] = tuple(SIZES)) -> Path:
    """Writes a model repository with models of these sizes. `yaml` is the text of every model.yaml."""
    for name in sizes:
        width, layers = SIZES[name]
        write_mlp(root / name / "1" / "model.onnx", width, layers)
        if yaml:
            (root / name / "model.yaml").write_text(yaml)
    return root


def write_pool(path: Path, shape: tuple[int, int, int], outputs: int = 10) -> None:
    """Writes an ONNX model x [n, *shape] -> y [n, outputs]: the mean of each channel times a small matrix. Its input is
    large, and it computes little."""
    from onnx import TensorProto, helper, numpy_helper, save

    weight = np.random.default_rng(0).normal(size=(shape[0], outputs)).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["m"]),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pool",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", outputs])],
        [numpy_helper.from_array(weight, "w")],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
