"""Writes TorchScript modules and exported programs, and opens them with the torch backend."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
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
    TensorSpec,
)
from inferd.backends.torch.backend import TorchBackend
from inferd.wire.dtypes import DType

torch = pytest.importorskip("torch")
Array = np.ndarray[Any, Any]
F = DType.FP32
X = np.array([[1, 2], [3, 4]], np.float32)


def spec(name: str, shape: tuple[int, ...] | None = (-1, 2), dtype: DType = F) -> TensorSpec:
    return TensorSpec(name, dtype, shape)


def signature(inputs: list[TensorSpec], outputs: list[TensorSpec], name: str = "serving_default") -> Signature:
    return Signature(name, tuple(inputs), tuple(outputs))


def script(version: Path, module: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(module.eval()), str(version / "model.pt"))


def trace(version: Path, module: Any, *example: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(module.eval(), example), str(version / "model.pt"))


def open_model(version: Path, *declared: Signature, allow: Collection[str] = (), **options: Any) -> Model:
    backend = TorchBackend()
    artefact = backend.find(version)
    assert artefact is not None
    return backend.open(OpenRequest("m", 1, version, artefact, declared, options, frozenset(allow)))


@contextmanager
def served(
    version: Path, *declared: Signature, allow: Collection[str] = (), **options: Any
) -> Iterator[tuple[Model, Instance]]:
    with in_service(open_model(version, *declared, allow=allow, **options)) as both:
        yield both


def outputs_of(instance: Instance, **inputs: Array) -> dict[str, Array]:
    return instance.run("serving_default", inputs)
