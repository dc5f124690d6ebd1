"""LiteRT models of scikit-learn's digits, in floats and in int8, written without TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from support.litert_graphs import GraphBuilder

Array = np.ndarray[Any, Any]
SCALE, ZERO = 1 / 16, -128  # of the int8 model's input
OUT_SCALE, OUT_ZERO = 0.02, 0


@dataclass(frozen=True)
class Digits:
    """Rows that the models have not seen, and a linear classifier. `images`: FP32 [n, 64] in the range 0 to 1."""

    images: Array
    labels: Array
    weights: Array
    bias: Array


@cache
def digits() -> Digits:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    known, truth = images[:1257], labels[:1257]
    wanted = np.eye(10, dtype=np.float32)[truth] * 2 - 1
    padded = np.concatenate([known, np.ones((len(known), 1), np.float32)], 1)
    solved = np.linalg.solve(padded.T @ padded + 1e-1 * np.eye(65), padded.T @ wanted).astype(np.float32)
    return Digits(images[1257:], labels[1257:], np.ascontiguousarray(solved[:64].T), np.ascontiguousarray(solved[64]))


def float_digits() -> bytes:
    """image FP32 [n, 64] -> scores FP32 [n, 10]."""
    model = digits()
    graph = GraphBuilder()
    image = graph.input("image", "FLOAT32", (-1, 64))
    scores = graph("FULLY_CONNECTED", image, model.weights, model.bias)
    return graph.content({"scores": graph.told(scores, (-1, 10))})


def int8_digits() -> bytes:
    """The same in int8: image INT8 [n, 64] -> scores INT8 [n, 10]."""
    model = digits()
    graph = GraphBuilder()
    image = graph.input("image", "INT8", (-1, 64), scale=[SCALE / 16], zero=[ZERO])
    scale = float(np.abs(model.weights).max()) / 127
    weights = graph.constant(np.round(model.weights / scale).astype(np.int8), scale=[scale])
    step = SCALE / 16 * scale
    bias = graph.constant(np.round(model.bias / step).astype(np.int32), scale=[step])
    scores = graph("FULLY_CONNECTED", image, weights, bias, quantised={"scale": [OUT_SCALE], "zero": [OUT_ZERO]})
    return graph.content({"scores": graph.told(scores, (-1, 10))})


def quantised(images: Array) -> Array:
    """What a client sends to the int8 model."""
    return np.clip(np.round(images / (SCALE / 16)) + ZERO, -128, 127).astype(np.int8)
