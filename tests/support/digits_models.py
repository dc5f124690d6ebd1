"""A classifier of scikit-learn's digits as an ONNX file, and rows of digits to judge it with."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
HIDDEN = 128


@cache
def trained() -> tuple[list[Array], Array, Array]:
    """Weights and biases of a perceptron, and 540 images with their labels that it has not seen."""
    import warnings

    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier((HIDDEN, HIDDEN), max_iter=25, random_state=0).fit(images[:1257], labels[:1257])
    parameters = [np.asarray(a, np.float32) for pair in zip(model.coefs_, model.intercepts_, strict=True) for a in pair]
    return parameters, images[1257:], labels[1257:]


def write_digits(path: Path, *, permuted: bool = False) -> None:
    """image FP32 [n, 64] -> scores FP32 [n, 10]. `permuted`: every class is told as the next one."""
    from onnx import TensorProto, helper, numpy_helper, save

    parameters, _, _ = trained()
    parameters = [np.roll(a, 1, axis=-1) if permuted and i >= 4 else a for i, a in enumerate(parameters)]
    nodes, constants, value = [], [], "image"
    for layer in range(3):
        weight, bias = parameters[2 * layer], parameters[2 * layer + 1]
        constants += [numpy_helper.from_array(weight, f"w{layer}"), numpy_helper.from_array(bias, f"b{layer}")]
        last = layer == 2
        made = "scores" if last else f"h{layer}"
        nodes.append(helper.make_node("Gemm", [value, f"w{layer}", f"b{layer}"], [made]))
        if not last:
            nodes.append(helper.make_node("Relu", [made], [f"r{layer}"]))
            value = f"r{layer}"
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
        constants,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


def write_sample(path: Path) -> None:
    """The images that the model has not seen, with their labels."""
    _, images, labels = trained()
    np.savez(path, image=images, expected=labels)


def write_noise(path: Path) -> None:
    """Rows that no image looks like: a calibration with them is worthless."""
    rng = np.random.default_rng(0)
    np.savez(path, image=(rng.normal(size=(256, 64)) * 500).astype(np.float32))
