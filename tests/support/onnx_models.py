"""Opens and runs ONNX models without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.backends import request_for

from inferd.backends.api import Model, Placement, Signature
from inferd.backends.onnx.backend import OnnxBackend


def open_model(directory: Path, declared: tuple[Signature, ...] = (), **options: Any) -> Model:
    backend = OnnxBackend()
    return backend.open(request_for(backend, directory, declared, options))


def run_once(model: Model, inputs: dict[str, Any]) -> dict[str, Any]:
    instance = model.instance(Placement())
    try:
        return instance.run("serving_default", inputs)
    finally:
        instance.close()
