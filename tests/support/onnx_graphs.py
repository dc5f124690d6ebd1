"""Small ONNX graphs in ONNX's text form, their analysis, and runs that show whether rows meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from inferd.backends.api import Independence, Signature, TensorSpec
from inferd.backends.onnx.independence.proof import analyse_model
from inferd.backends.onnx.messages import MemorySource
from inferd.wire.dtypes import DType

Array = np.ndarray[Any, Any]
BATCH = "n"
DOMAINS = '"ai.onnx.ml" : 3, "com.microsoft" : 1'


def graph(
    body: str,
    inputs: str = "float[n,4,6] x",
    output: str = "float[n] y",
    opset: int = 20,
    functions: str = "",
    domains: str = DOMAINS,
    **constants: Any,
) -> ModelProto:
    """A model whose nodes are `body`. The shapes of its outputs are left open. `constants` become initialisers."""
    domains = f", {domains}" if domains else ""
    text = f'<ir_version: 9, opset_import: ["" : {opset}{domains}]> g ({inputs}) => ({output}) {{ {body} }} {functions}'
    model = parser.parse_model(text)
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model


def signature_of(model: ModelProto, batched: Sequence[str] | None = None) -> Signature:
    """The signature; batched are the inputs whose first dimension is open, or those of these names."""
    defaults = {tensor.name for tensor in model.graph.initializer}

    def shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
        dims = value.type.tensor_type.shape.dim
        sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims]
        if batched is not None:
            sizes = [-1 if value.name in batched else 1, *sizes[1:]] if sizes else []
        return tuple(sizes)

    return Signature(
        "serving_default",
        tuple(TensorSpec(v.name, DType.FP32, shape(v)) for v in model.graph.input if v.name not in defaults),
        tuple(TensorSpec(v.name, DType.FP32, None) for v in model.graph.output),
    )


def analysed(model: ModelProto, batched: Sequence[str] | None = None) -> Independence:
    """What the analysis says about a model."""
    content = model.SerializeToString()
    return analyse_model(lambda: MemorySource(content), signature_of(model, batched))


def session(model: ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def rows_meet(made: onnxruntime.InferenceSession, inputs: Mapping[str, Array], batched: Sequence[str]) -> str | None:
    """How the outputs of rows together differ from those of rows alone; None if they agree. Raises what the model
    raises for a row alone."""
    count = min(len(inputs[name]) for name in batched)

    def picked(order: Sequence[int]) -> dict[str, Array]:
        return {n: np.ascontiguousarray(a[list(order)]) if n in batched else a for n, a in inputs.items()}

    alone = [made.run(None, picked([i])) for i in range(count)]
    for order in (list(range(count)), [0, count - 1], [count - 1, 1, 0]):
        try:
            together = made.run(None, picked(order))
        except Exception as error:
            return f"refuses {len(order)} rows: {error}"
        for at, output in enumerate(together):
            if not isinstance(output, np.ndarray) or not output.ndim or len(output) != len(order):
                return f"output {at} has not {len(order)} rows"
            for place, row in enumerate(order):
                if not same(output[place : place + 1], alone[row][at]):
                    return f"output {at}, order {order}, row {row}"
    return None


def same(a: Array, b: Array) -> bool:
    if a.shape != b.shape:
        return False
    if a.dtype.kind not in "fc":
        return bool(np.array_equal(a, b))
    return bool(np.allclose(a.astype(np.float64), b.astype(np.float64), rtol=2e-3, atol=2e-3, equal_nan=True))


_KINDS = {
    TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64, TensorProto.INT64: np.int64,
    TensorProto.INT32: np.int32, TensorProto.INT8: np.int8, TensorProto.UINT8: np.uint8, TensorProto.BOOL: np.bool_,
    TensorProto.UINT64: np.uint64,
}  # fmt: skip


def some_inputs(
    model: ModelProto, count: int = 4, open_size: int = 3, seed: int = 0
) -> tuple[dict[str, Array], list[str]]:
    """Rows that differ in content, sign and magnitude for the batched inputs, one value for each other input; and the
    names of the batched ones."""
    rng = np.random.default_rng(seed)
    inputs: dict[str, Array] = {}
    batched = []
    defaults = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name in defaults:
            continue
        dims = value.type.tensor_type.shape.dim
        shape = [dim.dim_value if dim.HasField("dim_value") else open_size for dim in dims]
        if dims and not dims[0].HasField("dim_value"):
            batched.append(value.name)
            shape[0] = count
        kind = value.type.tensor_type.elem_type
        if kind == TensorProto.STRING:
            words = np.array([b"a", b"bc", b"def"], object)
            inputs[value.name] = words[rng.integers(0, 3, shape)]
            continue
        numpy_kind = np.dtype(_KINDS[kind])
        if numpy_kind.kind == "f":
            array = rng.normal(size=shape)
            if value.name in batched:
                array *= np.array([1, 100, -1, 0.01, 30, 7])[:count].reshape(-1, *(1,) * (len(shape) - 1))
            inputs[value.name] = array.astype(numpy_kind)
        else:
            inputs[value.name] = rng.integers(0, 2, shape).astype(numpy_kind)
    return inputs, batched


def operators_of(model: ModelProto) -> set[str]:
    """The operators of the main graph, its branches and its functions, with their domain in front."""
    found = set()

    def visit(nodes: Any) -> None:
        for node in nodes:
            found.add(f"{node.domain}:{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type)
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    visit(attribute.g.node)

    visit(model.graph.node)
    for function in model.functions:
        visit(function.node)
    return found


__all__ = ["analysed", "graph", "helper", "operators_of", "rows_meet", "same", "session", "signature_of", "some_inputs"]
