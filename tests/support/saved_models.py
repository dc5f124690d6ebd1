"""Writes SavedModels, and opens them with the TensorFlow backend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.backends import in_service

from inferd.backends.api import (
    Instance,
    Model,
    OpenRequest,
    Signature,
)
from inferd.backends.tensorflow.backend import TensorFlowBackend

tf = pytest.importorskip("tensorflow")
Array = np.ndarray[Any, Any]
X = np.array([[1, 2], [3, 4]], np.float32)


def words(*values: bytes) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


@contextmanager
def served(
    version: Path, *declared: Signature, backend: TensorFlowBackend | None = None, **options: Any
) -> Iterator[tuple[Model, Instance]]:
    backend = backend or TensorFlowBackend()
    artefact = backend.find(version)
    assert artefact is not None
    assert backend.complete(artefact) is None
    with in_service(backend.open(OpenRequest("m", 1, version, artefact, declared, options))) as both:
        yield both


def of(*shape: int | None, kind: Any = None, name: str = "x") -> Any:
    return tf.TensorSpec(shape, kind or tf.float32, name=name)


def save(version: Path, module: Any, **signatures: Any) -> None:
    """Saves a module with signatures. The module keeps references to the functions, so that TensorFlow finds their
    variables."""
    module.functions = list(signatures.values())
    tf.saved_model.save(module, str(version), signatures=signatures)


def doubling(version: Path) -> None:
    module = tf.Module()
    module.factor = tf.Variable(2.0)
    save(
        version, module, serving_default=tf.function(lambda x: {"y": x * module.factor}, input_signature=[of(None, 2)])
    )
