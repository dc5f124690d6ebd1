"""SavedModels for the conformance suite: directly in the version directory, and in `model.savedmodel/`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from support.backends import BIAS, WEIGHTS, WIDE, BackendCase, Cannot, signature_of

from inferd.backends.api import Backend, Signature
from inferd.wire.dtypes import DType


def save(directory: Path, model: str, dtype: DType) -> None:
    """Writes the table's model as a tf.Module with one signature."""
    import tensorflow as tf

    module = tf.Module()
    if model in ("linear", "wide"):
        module.weights = tf.Variable(WEIGHTS if model == "linear" else 2 * np.eye(WIDE, dtype=np.float32))
        module.bias = tf.Variable(BIAS if model == "linear" else np.zeros(WIDE, np.float32))
    bodies: dict[str, Any] = {
        "linear": lambda x: {"y": x @ module.weights + module.bias},
        "wide": lambda x: {"y": x @ module.weights + module.bias},
        "identity": lambda x: {"y": tf.identity(x)},
        "scalar": lambda x, factor: {"y": x * factor},
        "two": lambda b, a: {"sum": a + b, "difference": b - a},
        "picky": lambda x: {"y": tf.reshape(x, [2, 2])},
    }
    if model not in bodies:
        raise Cannot(model)

    def spec(s: Any) -> Any:
        kind = tf.string if s.dtype is DType.STRING else tf.as_dtype(s.dtype.numpy)
        return tf.TensorSpec([None if d < 0 else d for d in s.shape], kind, name=s.name)

    function = tf.function(bodies[model], input_signature=[spec(s) for s in signature_of(model, dtype).inputs])
    module.function = function
    tf.saved_model.save(module, str(directory), signatures={"serving_default": function})


class SavedModelCase(BackendCase):
    id = "savedmodel"
    module = "tensorflow"
    dtypes = tuple(DType)
    heavy = True

    def backend(self) -> Backend:
        from inferd.backends.tensorflow.backend import TensorFlowBackend

        return TensorFlowBackend()

    def write(self, model: str, directory: Path, dtype: DType = DType.FP32) -> tuple[Signature, ...]:
        save(directory, model, dtype)
        return ()

    def refusals(self) -> Mapping[str, str]:
        return {"model.h5": "export", "model.keras": "export"}


class TritonLayoutCase(SavedModelCase):
    """The same models in the directory `model.savedmodel/`."""

    id = "savedmodel-in-triton-layout"
    dtypes = ()

    def write(self, model: str, directory: Path, dtype: DType = DType.FP32) -> tuple[Signature, ...]:
        save(directory / "model.savedmodel", model, dtype)
        return ()


CASES: list[BackendCase] = [SavedModelCase(), TritonLayoutCase()]
