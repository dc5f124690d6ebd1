"""Small LiteRT models written operator by operator, their analysis, and runs that show whether rows meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from inferd.backends.api import Independence, Placement
from inferd.backends.litert.backend import LiteRtModel
from inferd.backends.litert.flatbuffer import MemoryBytes
from inferd.backends.litert.graph import read_graph
from inferd.backends.litert.options import LiteRtOptions

Array = np.ndarray[Any, Any]
TYPES = {
    "float32": "FLOAT32", "float16": "FLOAT16", "float64": "FLOAT64", "int8": "INT8", "int16": "INT16",
    "int32": "INT32", "int64": "INT64", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "bool": "BOOL",
}  # fmt: skip
_OPTIONS = {
    "ADD": "Add", "MUL": "Mul", "SUB": "Sub", "DIV": "Div", "CONV_2D": "Conv2D", "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "CONV_3D": "Conv3D", "TRANSPOSE_CONV": "TransposeConv", "AVERAGE_POOL_2D": "Pool2D", "MAX_POOL_2D": "Pool2D",
    "L2_POOL_2D": "Pool2D", "FULLY_CONNECTED": "FullyConnected", "BATCH_MATMUL": "BatchMatMul",
    "CONCATENATION": "Concatenation", "RESHAPE": "Reshape", "MEAN": "Reducer", "SUM": "Reducer",
    "REDUCE_PROD": "Reducer", "REDUCE_MAX": "Reducer", "REDUCE_MIN": "Reducer", "REDUCE_ANY": "Reducer",
    "REDUCE_ALL": "Reducer", "SQUEEZE": "Squeeze", "SPLIT": "Split", "SPLIT_V": "SplitV",
    "STRIDED_SLICE": "StridedSlice", "GATHER": "Gather", "ONE_HOT": "OneHot", "PACK": "Pack", "UNPACK": "Unpack",
    "SPACE_TO_DEPTH": "SpaceToDepth", "DEPTH_TO_SPACE": "DepthToSpace", "MIRROR_PAD": "MirrorPad", "CAST": "Cast",
    "SHAPE": "Shape", "REVERSE_SEQUENCE": "ReverseSequence", "CUMSUM": "Cumsum", "SOFTMAX": "Softmax",
    "LOCAL_RESPONSE_NORMALIZATION": "LocalResponseNormalization", "LEAKY_RELU": "LeakyRelu", "GELU": "Gelu",
    "BUCKETIZE": "Bucketize", "FAKE_QUANT": "FakeQuant", "IF": "If", "WHILE": "While", "CALL": "Call",
    "ARG_MAX": "ArgMax", "ARG_MIN": "ArgMin", "L2_NORMALIZATION": "L2Norm", "VAR_HANDLE": "VarHandle",
    "UNIQUE": "Unique", "SVDF": "SVDF",
}  # fmt: skip

_VERSIONS = {"BROADCAST_TO": 2}


class Tensor:
    """A tensor of a graph under construction."""

    def __init__(self, index: int, kind: str) -> None:
        self.index = index
        self.kind = kind


class GraphBuilder:
    """Writes a model: `graph.input(...)`, then operators by calling the graph, then `graph.content(...)`."""

    def __init__(self, owner: GraphBuilder | None = None) -> None:
        """`owner`: the graph in which this one is a subgraph."""
        self._model = owner._model if owner else schema.ModelT()
        if owner is None:
            self._model.version = 3
            self._model.description = ""
            self._model.buffers = [schema.BufferT()]
            self._model.operatorCodes = []
            self._model.subgraphs = []
        self._graph = schema.SubGraphT()
        self._graph.name = ""
        self._graph.tensors, self._graph.inputs, self._graph.outputs, self._graph.operators = [], [], [], []
        self._model.subgraphs.append(self._graph)
        self.number = len(self._model.subgraphs) - 1
        self._names: dict[str, int] = {}

    def tensor(
        self,
        kind: str,
        shape: Sequence[int] = (),
        content: bytes | None = None,
        *,
        name: str = "",
        scale: Sequence[float] = (),
        zero: Sequence[int] = (),
        axis: int = 0,
        variable: bool = False,
        told: bool = True,
    ) -> Tensor:
        made = schema.TensorT()
        made.name = name or f"t{len(self._graph.tensors)}"
        made.type = getattr(schema.TensorType, kind)
        made.shape = [1 if size < 0 else size for size in shape]
        if -1 in shape and told:
            made.shapeSignature = list(shape)
        made.hasRank = told
        made.isVariable = variable
        made.buffer = 0
        if content is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(content, np.uint8)
            self._model.buffers.append(buffer)
            made.buffer = len(self._model.buffers) - 1
        if scale:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = list(scale), list(zero) or [0] * len(scale)
            made.quantization.quantizedDimension = axis
        self._graph.tensors.append(made)
        return Tensor(len(self._graph.tensors) - 1, kind)

    def input(self, name: str, kind: str, shape: Sequence[int], **settings: Any) -> Tensor:
        made = self.tensor(kind, shape, name=name, **settings)
        self._graph.inputs.append(made.index)
        self._names[name] = made.index
        return made

    def constant(self, values: Any, **settings: Any) -> Tensor:
        """An array; whole numbers that are no array become int32, other numbers float32."""
        array = np.asarray(values)
        if not isinstance(values, (np.ndarray, np.generic)):
            array = array.astype(
                np.float32 if array.dtype.kind == "f" else bool if array.dtype.kind == "b" else np.int32
            )
        return self.tensor(TYPES[array.dtype.name], array.shape, np.ascontiguousarray(array).tobytes(), **settings)

    def __call__(
        self,
        operator: str,
        *operands: Any,
        kind: str | Sequence[str] | None = None,
        count: int = 1,
        quantised: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Adds an operator and returns its output, or a list of them. `kind`: element type of the outputs, or of each
        of them; that of the first tensor if left out. Operands that are no tensors become constants; None is one that
        is left out."""
        given = [
            operand if operand is None or isinstance(operand, Tensor) else self.constant(operand)
            for operand in operands
        ]
        kind = kind or next((t.kind for t in operands if isinstance(t, Tensor)), "FLOAT32")
        kinds = [kind] * count if isinstance(kind, str) else kind
        made = [self.tensor(each, (), told=False, **(quantised or {})) for each in kinds]
        step = schema.OperatorT()
        step.opcodeIndex = self._code(operator)
        step.inputs = [-1 if tensor is None else tensor.index for tensor in given]
        step.outputs = [tensor.index for tensor in made]
        name = _OPTIONS.get(operator)
        if name is not None:
            step.builtinOptionsType = getattr(schema.BuiltinOptions, f"{name}Options")
            step.builtinOptions = getattr(schema, f"{name}OptionsT")()
            for key, value in options.items():
                assert hasattr(step.builtinOptions, key), (operator, key)
                setattr(step.builtinOptions, key, value)
        self._graph.operators.append(step)
        return made if count != 1 else made[0]

    def told(self, tensor: Tensor, shape: Sequence[int]) -> Tensor:
        """The tensor, with this shape in the file: what an operator makes has none otherwise."""
        made = self._graph.tensors[tensor.index]
        made.shape, made.shapeSignature, made.hasRank = [1 if size < 0 else size for size in shape], list(shape), True
        return tensor

    def subgraph(self, kinds: Sequence[tuple[str, Sequence[int]]], body: Callable[..., Any]) -> int:
        """A subgraph with inputs of these types and shapes; the number by which operators call it."""
        inner = GraphBuilder(self)
        results = body(inner, *(inner.input(f"i{i}", kind, shape) for i, (kind, shape) in enumerate(kinds)))
        inner.outputs(results if isinstance(results, (list, tuple)) else [results])
        return inner.number

    def outputs(self, tensors: Sequence[Tensor]) -> None:
        self._graph.outputs = [tensor.index for tensor in tensors]

    def content(self, outputs: Mapping[str, Tensor], *, signature: str | None = "serving_default") -> bytes:
        """The file. `signature`: its name; None for a file without signatures."""
        self.outputs(list(outputs.values()))
        if signature is not None:
            self.sign(signature, outputs)
        return packed(self._model)

    def sign(self, signature: str, outputs: Mapping[str, Tensor]) -> None:
        """Gives the subgraph a signature."""
        self.outputs(list(outputs.values()))
        made = schema.SignatureDefT()
        made.signatureKey, made.subgraphIndex = signature, self.number
        made.inputs = [_named(name, index) for name, index in self._names.items()]
        made.outputs = [_named(name, tensor.index) for name, tensor in outputs.items()]
        self._model.signatureDefs = [*(self._model.signatureDefs or []), made]

    def _code(self, operator: str) -> int:
        custom = operator.startswith("custom:")
        number = schema.BuiltinOperator.CUSTOM if custom else getattr(schema.BuiltinOperator, operator)
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = (
            number,
            min(number, 127),
            _VERSIONS.get(operator, 1),
        )
        code.customCode = operator.removeprefix("custom:") if custom else None
        self._model.operatorCodes.append(code)
        return len(self._model.operatorCodes) - 1


def packed(model: Any) -> bytes:
    """The bytes of a model of the schema's object interface."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _named(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry


Body = Callable[..., Any]


def written(body: Body, *inputs: tuple[str, Sequence[int]]) -> bytes:
    """A model whose inputs have these element types and shapes and are called x, x1, x2; `body(graph, x, ...)` returns
    the output."""
    graph = GraphBuilder()
    given = [graph.input(f"x{i or ''}", kind, shape) for i, (kind, shape) in enumerate(inputs)]
    return graph.content({"y": body(graph, *given)})


def opened(content: bytes, options: LiteRtOptions | None = None) -> LiteRtModel:
    return LiteRtModel(content, read_graph(MemoryBytes(content)), options or LiteRtOptions(), ())


def analysed(content: bytes) -> Independence:
    """What the analysis says about the default signature."""
    model = opened(content)
    return model.independence(model.signatures[0])


def operators_of(content: bytes) -> set[str]:
    return {operator.name for operator in read_graph(MemoryBytes(content)).operators()}


def some_inputs(content: bytes, count: int = 4, open_size: int = 3) -> dict[str, Array]:
    """Rows that differ in content, sign and magnitude."""
    rng = np.random.default_rng(0)
    inputs: dict[str, Array] = {}
    for spec in opened(content).signatures[0].inputs:
        shape = [open_size if size < 0 else size for size in spec.shape or ()]
        if spec.shape and spec.shape[0] == -1:
            shape[0] = count
        dtype = spec.dtype.numpy
        if dtype.kind == "f":
            scale = np.array([1, 3, 0.3, 20], np.float32)[:count] if shape and shape[0] == count else np.ones(1)
            values = rng.normal(size=shape) * scale.reshape([-1] + [1] * (len(shape) - 1) if shape else [])
            inputs[spec.name] = values.astype(dtype)
        elif dtype.kind == "b":
            inputs[spec.name] = rng.random(shape) < 0.5
        else:
            inputs[spec.name] = rng.integers(0, 3, shape).astype(dtype)
    return inputs


def rows_meet(content: bytes, inputs: Mapping[str, Array]) -> str | None:
    """How the output of rows together differs from that of rows alone; None if they agree. Raises what the model raises
    for a row alone."""
    model = opened(content)
    signature = model.signatures[0]
    batched = {spec.name for spec in signature.inputs if spec.shape and spec.shape[0] == -1}
    count = min(len(inputs[name]) for name in batched)

    def picked(order: Sequence[int]) -> dict[str, Array]:
        return {n: np.ascontiguousarray(a[list(order)]) if n in batched else a for n, a in inputs.items()}

    with closing(model), closing(model.instance(Placement())) as instance:
        alone = [instance.run(signature.name, picked([i]))["y"] for i in range(count)]
        for order in (list(range(count)), [0, count - 1], [count - 1, 1, 0]):
            try:
                together = instance.run(signature.name, picked(order))["y"]
            except Exception as error:
                return f"refuses {len(order)} rows: {error}"
            if not together.ndim or len(together) != len(order):
                return f"has shape {together.shape} for {len(order)} rows"
            for place, row in enumerate(order):
                if not same(together[place : place + 1], alone[row]):
                    return f"order {order}, row {row}"
    return None


def same(a: Array, b: Array) -> bool:
    if a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    return bool(np.allclose(a.astype(np.float64), b.astype(np.float64), rtol=2e-3, atol=2e-3, equal_nan=True))
