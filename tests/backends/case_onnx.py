"""ONNX artefacts for the conformance suite: one file, and a directory with external data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from support.backends import BIAS, WEIGHTS, WIDE, BackendCase, Cannot

from inferd.backends.api import Backend, Instance, Signature
from inferd.wire.dtypes import DType

DTYPES = tuple(DType)


def write_onnx(
    path: Path,
    nodes: list[Any],
    inputs: list[tuple[str, Any, Any]],
    outputs: list[tuple[str, Any, Any]],
    constants: dict[str, Any] | None = None,
    *,
    external: str | None = None,
    opset: int = 17,
) -> None:
    """Writes a model. `external`: name of a file beside it that holds all constants."""
    import onnx
    from onnx import helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(*o) for o in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    kwargs: dict[str, Any] = {}
    if external and constants:
        kwargs = {
            "save_as_external_data": True,
            "all_tensors_to_one_file": True,
            "location": external,
            "size_threshold": 0,
        }
    onnx.save_model(model, str(path), **kwargs)


class OnnxCase(BackendCase):
    id = "onnx"
    module = "onnxruntime"
    dtypes = DTYPES
    external: str | None = None

    def backend(self) -> Backend:
        from inferd.backends.onnx.backend import OnnxBackend

        return OnnxBackend()

    def path(self, directory: Path) -> Path:
        return directory / "model.onnx"

    def write(self, model: str, directory: Path, dtype: DType = DType.FP32) -> tuple[Signature, ...]:
        from onnx import TensorProto as T
        from onnx.helper import make_node as node

        f = T.FLOAT
        path = self.path(directory)
        if model == "linear":
            write_onnx(
                path,
                [node("Gemm", ["x", "w", "b"], ["y"])],
                [("x", f, ["N", 4])],
                [("y", f, ["N", 3])],
                {"w": WEIGHTS, "b": BIAS},
                external=self.external,
            )
        elif model == "identity":
            t = {DType.FP16: T.FLOAT16, DType.FP32: T.FLOAT, DType.FP64: T.DOUBLE, DType.BF16: T.BFLOAT16}.get(dtype)
            t = t if t is not None else T.DataType.Value(dtype.name)
            write_onnx(path, [node("Identity", ["x"], ["y"])], [("x", t, ["N", 2])], [("y", t, ["N", 2])])
        elif model == "scalar":
            write_onnx(
                path,
                [node("Mul", ["x", "factor"], ["y"])],
                [("x", f, ["N", 3]), ("factor", f, [])],
                [("y", f, ["N", 3])],
            )
        elif model == "two":
            write_onnx(
                path,
                [node("Add", ["a", "b"], ["sum"]), node("Sub", ["b", "a"], ["difference"])],
                [("b", f, ["N", 2]), ("a", f, ["N", 2])],
                [("sum", f, ["N", 2]), ("difference", f, ["N", 2])],
            )
        elif model == "picky":
            write_onnx(
                path,
                [node("Reshape", ["x", "shape"], ["y"])],
                [("x", f, ["N", 2])],
                [("y", f, [2, 2])],
                {"shape": np.array([2, 2])},
            )
        elif model == "wide":
            write_onnx(
                path,
                [node("MatMul", ["x", "w"], ["y"])],
                [("x", f, ["N", WIDE])],
                [("y", f, ["N", WIDE])],
                {"w": 2 * np.eye(WIDE, dtype=np.float32)},
                external=self.external,
            )
        else:
            raise Cannot(model)
        return ()

    def refusals(self) -> Mapping[str, str]:
        return {"resnet50.onnx": "rename"}

    def threads_of(self, instance: Instance) -> int | None:
        session: Any = instance.session  # type: ignore[attr-defined]
        return int(session.get_session_options().intra_op_num_threads)


class OnnxDirectoryCase(OnnxCase):
    """A directory `model.onnx/` that holds `model.onnx`, with the constants in another file."""

    id = "onnx-external-data"
    dtypes = ()
    external = "weights.bin"

    def path(self, directory: Path) -> Path:
        (directory / "model.onnx").mkdir(exist_ok=True)
        return directory / "model.onnx" / "model.onnx"


CASES: list[BackendCase] = [OnnxCase(), OnnxDirectoryCase()]
