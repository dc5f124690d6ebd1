"""LiteRT artefacts for the conformance suite: with a signature, and without."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from support.backends import BIAS, WEIGHTS, WIDE, BackendCase, Cannot, signature_of

from inferd.backends.api import Backend, Signature
from inferd.wire.dtypes import DType

NAMES = {
    DType.FP16: "FLOAT16", DType.FP32: "FLOAT32", DType.FP64: "FLOAT64", DType.BF16: "BFLOAT16",
}  # fmt: skip


class LiteRtCase(BackendCase):
    id = "litert"
    module = "ai_edge_litert"
    dtypes = tuple(DType)
    signature: str | None = "serving_default"

    def backend(self) -> Backend:
        from inferd.backends.litert.backend import LiteRtBackend

        return LiteRtBackend()

    def write(self, model: str, directory: Path, dtype: DType = DType.FP32) -> tuple[Signature, ...]:
        from support.litert_graphs import GraphBuilder

        if model not in ("linear", "identity", "scalar", "two", "picky", "wide"):
            raise Cannot(model)
        graph = GraphBuilder()
        x = {
            spec.name: graph.input(spec.name, NAMES.get(spec.dtype, spec.dtype.name), spec.shape or ())
            for spec in signature_of(model, dtype).inputs
        }
        if model == "linear":
            outputs = {"y": graph("FULLY_CONNECTED", x["x"], np.ascontiguousarray(WEIGHTS.T), BIAS)}
        elif model == "wide":
            outputs = {"y": graph("FULLY_CONNECTED", x["x"], 2 * np.eye(WIDE, dtype=np.float32), None)}
        elif model == "identity":
            outputs = {"y": graph("RESHAPE", x["x"], [-1, 2])}
        elif model == "scalar":
            outputs = {"y": graph("MUL", x["x"], x["factor"])}
        elif model == "two":
            outputs = {"sum": graph("ADD", x["a"], x["b"]), "difference": graph("SUB", x["b"], x["a"])}
        else:
            outputs = {"y": graph("RESHAPE", x["x"], [2, 2])}
        content = graph.content(outputs, signature=self.signature)
        (directory / "model.tflite").write_bytes(content)
        return ()

    def refusals(self) -> Mapping[str, str]:
        return {"mobilenet.tflite": "rename"}


CASES: list[BackendCase] = [LiteRtCase()]
