"""What inferd knows of a LiteRT model without the framework: tensors, operators, subgraphs, signatures.

`read_graph` checks everything that it reads: an index leads to something, sizes fit, subgraphs do not contain
themselves. LiteRT itself checks the structure of the file again before it uses it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inferd.backends.litert.flatbuffer import Bytes, FlatbufferReader, Malformed, Span, Table, Truncated
from inferd.backends.litert.schema import ELEMENT_TYPES, OPERATORS, SCHEMA, UNIONS

_MOST_RANK = 32
_MOST_ZERO = (1 << 31) - 1  # zero points are whole numbers of at most 32 bits
_MOST_NUMBERS = 1 << 40  # elements of a tensor whose sizes are all known
_CUSTOM = OPERATORS.index("CUSTOM")
_BITS: Mapping[str, int] = {
    "FLOAT32": 32, "FLOAT16": 16, "INT32": 32, "UINT8": 8, "INT64": 64, "BOOL": 8, "INT16": 16, "COMPLEX64": 64,
    "INT8": 8, "FLOAT64": 64, "COMPLEX128": 128, "UINT64": 64, "UINT32": 32, "UINT16": 16, "BFLOAT16": 16,
}  # fmt: skip
_WINDOWS = frozenset(["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D", "TRANSPOSE_CONV", "CONV_3D_TRANSPOSE"])
_POOLS = frozenset(["AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D"])
_CALLS = ("subgraph", "then_subgraph_index", "else_subgraph_index", "cond_subgraph_index", "body_subgraph_index",
          "init_subgraph_index")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Quantisation:
    """real value = scale * (number - zero_point); one scale, or one for each element along `axis`."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int


@dataclass(frozen=True, slots=True)
class LiteTensor:
    """A tensor.

    shape      sizes, -1 for any size; None if not even the rank is told
    told       the file says which sizes may vary. Where it does not, what operators make may have other sizes
    constant   where its bytes lie; None for what is computed
    variable   keeps its content from one run to the next
    """

    name: str
    type: str
    shape: tuple[int, ...] | None
    told: bool = False
    constant: Span | None = None
    variable: bool = False
    sparse: bool = False
    quantisation: Quantisation | None = None


@dataclass(frozen=True, slots=True)
class LiteOperator:
    """A step. `name`: the operator's, of a custom one "custom:" and its own name. `inputs`: indices of tensors, -1 for
    one that is left out. `options`: its settings by the names of the schema."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Table = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LiteSubgraph:
    """A function of tensors."""

    name: str
    tensors: tuple[LiteTensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[LiteOperator, ...]


@dataclass(frozen=True, slots=True)
class LiteSignature:
    """Names for the inputs and outputs of a subgraph: indices of tensors by name."""

    name: str
    subgraph: int
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class LiteGraph:
    """A model. `signatures` may be empty: then subgraph 0 is called by its tensors."""

    subgraphs: tuple[LiteSubgraph, ...]
    signatures: tuple[LiteSignature, ...]

    def operators(self) -> Sequence[LiteOperator]:
        """The operators of all subgraphs."""
        return [operator for subgraph in self.subgraphs for operator in subgraph.operators]


def read_graph(source: Bytes) -> LiteGraph:
    """Reads a model. Raises Truncated, Malformed, OSError. Weights are not read."""
    model = FlatbufferReader(source, SCHEMA, UNIONS).root("Model")
    if model["version"] != 3:
        raise Malformed(f"its schema has version {model['version']}, version 3 is known")
    codes = [_operator_name(code) for code in model["operator_codes"] or ()]
    buffers = [_content(buffer, source.size) for buffer in model["buffers"] or ()]
    subgraphs = tuple(_subgraph(table, codes, buffers, source) for table in model["subgraphs"] or ())
    if not subgraphs:
        raise Malformed("it has no subgraph")
    _check_calls(subgraphs)
    signatures = tuple(_signature(table, subgraphs) for table in model["signature_defs"] or ())
    if len({signature.name for signature in signatures}) != len(signatures):
        raise Malformed("two signatures have one name")
    return LiteGraph(subgraphs, signatures)


def _operator_name(code: Table) -> str:
    number = max(code["deprecated_builtin_code"], code["builtin_code"])
    if number == _CUSTOM:
        return f"custom:{code['custom_code'] or ''}"
    return OPERATORS[number] if 0 <= number < len(OPERATORS) else f"operator {number}"


def _content(buffer: Table, size: int) -> Span | None:
    """Where a buffer's bytes lie. Files of more than 2 GiB have them behind the flatbuffer."""
    span: Span | None = buffer["data"]
    if buffer["offset"] > 1:  # 1: a place that the writer has not filled in
        span = Span(buffer["offset"], buffer["size"])
        if span.start + span.size > size:
            raise Truncated(f"{span.start + span.size} bytes are announced, {size} are there")
    return span if span is not None and span.size else None


def _subgraph(table: Table, codes: Sequence[str], buffers: Sequence[Span | None], source: Bytes) -> LiteSubgraph:
    name = table["name"] or ""
    tensors = tuple(_tensor(tensor, buffers, source) for tensor in table["tensors"] or ())
    operators = []
    for operator in table["operators"] or ():
        if operator["opcode_index"] >= len(codes):
            raise Malformed(f"operator {operator['opcode_index']} is not in its list of {len(codes)}")
        step = LiteOperator(
            codes[operator["opcode_index"]],
            _indices(operator["inputs"], len(tensors), least=-1),
            _indices(operator["outputs"], len(tensors)),
            operator["builtin_options"] or {},
        )
        _check_settings(step)
        operators.append(step)
    inputs, outputs = _indices(table["inputs"], len(tensors)), _indices(table["outputs"], len(tensors))
    return LiteSubgraph(name, tensors, inputs, outputs, tuple(operators))


def _indices(numbers: Any, count: int, least: int = 0) -> tuple[int, ...]:
    found = tuple(numbers.tolist()) if numbers is not None else ()
    for number in found:
        if not least <= number < count:
            raise Malformed(f"tensor {number} is not one of its {count}")
    return found


def _tensor(table: Table, buffers: Sequence[Span | None], source: Bytes) -> LiteTensor:
    name, number = table["name"] or "", table["type"]
    kind = ELEMENT_TYPES[number] if 0 <= number < len(ELEMENT_TYPES) else f"element type {number}"
    if table["buffer"] >= len(buffers):
        raise Malformed(f"the tensor {name!r} lies in buffer {table['buffer']}, there are {len(buffers)}")
    shape = _shape(name, table["shape"])
    told = table["shape_signature"]
    if told is not None and len(told):
        signature = _shape(name, told)
        assert signature is not None
        if shape is not None and len(signature) != len(shape):
            raise Malformed(f"the tensor {name!r} has two shapes of different rank")
    constant = buffers[table["buffer"]]
    sparse = table["sparsity"] is not None
    if constant is not None:
        _check_constant(name, kind, shape or (), constant, source, sparse=sparse)
    if told is not None and len(told):
        shape = signature
    elif not shape and not table["has_rank"] and constant is None:
        shape = None
    quantised = _quantisation(name, table["quantization"], shape)
    known = told is not None and len(told) > 0
    return LiteTensor(name, kind, shape, known, constant, bool(table["is_variable"]), sparse, quantised)


def _shape(name: str, numbers: Any) -> tuple[int, ...] | None:
    if numbers is None:
        return ()
    sizes = tuple(numbers.tolist())
    if len(sizes) > _MOST_RANK or any(size < -1 for size in sizes):
        raise Malformed(f"the tensor {name!r} has a shape that is none")
    if math.prod(size for size in sizes if size > 0) > _MOST_NUMBERS:
        raise Malformed(f"the tensor {name!r} has more elements than any machine can hold: {list(sizes)}")
    return sizes


def _check_constant(
    name: str, kind: str, shape: tuple[int, ...], constant: Span, source: Bytes, *, sparse: bool
) -> None:
    if any(size < 0 for size in shape):
        raise Malformed(f"the constant {name!r} has an open size")
    count = math.prod(shape)
    if kind == "STRING":
        head = source.read(constant.start, 4)
        texts = struct.unpack("<i", head)[0] if len(head) == 4 else -1
        if not 0 <= texts <= constant.size // 4 - 2 or texts != count:
            raise Malformed(f"the constant {name!r} has {texts} texts for {count} elements")
        places = np.frombuffer(source.read(constant.start + 4, 4 * (texts + 1)), "<i4")
        if len(places) != texts + 1 or (np.diff(places) < 0).any() or places[0] < 0 or places[-1] > constant.size:
            raise Malformed(f"the constant {name!r} has texts outside its bytes")
    elif kind in _BITS and not sparse and constant.size * 8 != count * _BITS[kind]:
        raise Malformed(f"the constant {name!r} has {constant.size} bytes for {count} elements of {kind}")


def _quantisation(name: str, table: Table | None, shape: tuple[int, ...] | None) -> Quantisation | None:
    if table is None or table["scale"] is None or not len(table["scale"]):
        return None
    axis = table["quantized_dimension"]
    if not 0 <= axis < max(1, len(shape or ())):
        raise Malformed(f"the tensor {name!r} is quantised along axis {axis}, which it does not have")
    scales, zeros = table["scale"], table["zero_point"]
    zeros = np.zeros(len(scales), np.int64) if zeros is None or not len(zeros) else zeros
    if len(zeros) not in (1, len(scales)):
        raise Malformed(f"the tensor {name!r} has {len(scales)} scales and {len(zeros)} zero points")
    if (np.abs(zeros) > _MOST_ZERO).any() or not np.isfinite(scales).all():
        raise Malformed(f"the tensor {name!r} has a scale or zero point that is none")
    return Quantisation(tuple(map(float, scales.tolist())), tuple(map(int, zeros.tolist())), int(axis))


def _check_settings(operator: LiteOperator) -> None:
    """Raises Malformed for settings that kernels take as given: they divide by some, and count outputs by others."""
    options = operator.options
    needed: list[str] = []
    if operator.name in _WINDOWS:
        needed = [key for key in options if key.startswith(("stride_", "dilation_"))]
    elif operator.name in _POOLS:
        needed = ["stride_w", "stride_h", "filter_w", "filter_h"]
    for key in needed:
        if options.get(key, 0) < 1:
            raise Malformed(f"{operator.name} has {key} {options.get(key, 0)}")
    for key, there in (("num_splits", operator.outputs), ("num", operator.outputs), ("values_count", operator.inputs)):
        if key in options and options[key] != len(there):
            raise Malformed(f"{operator.name} has {key} {options[key]} and {len(there)} tensors")


def _check_calls(subgraphs: Sequence[LiteSubgraph]) -> None:
    """Raises Malformed for a call of a subgraph that is not there, and for one that leads back to its caller."""
    calls: list[set[int]] = []
    for subgraph in subgraphs:
        called = {step.options[key] for step in subgraph.operators for key in _CALLS if key in step.options}
        for number in called:
            if not 0 <= number < len(subgraphs):
                raise Malformed(f"it calls subgraph {number}, there are {len(subgraphs)}")
        calls.append(called)
    done: set[int] = set()
    while len(done) < len(calls):
        ready = {i for i, called in enumerate(calls) if i not in done and called <= done}
        if not ready:
            raise Malformed("a subgraph calls itself")
        done |= ready


def _signature(table: Table, subgraphs: Sequence[LiteSubgraph]) -> LiteSignature:
    name, number = table["signature_key"] or "", table["subgraph_index"]
    if number >= len(subgraphs):
        raise Malformed(f"the signature {name!r} calls subgraph {number}, there are {len(subgraphs)}")
    subgraph = subgraphs[number]
    maps = []
    for role in ("inputs", "outputs"):
        entries = table[role] or ()
        tensors = {entry["name"] or "": entry["tensor_index"] for entry in entries}
        if len(tensors) != len(entries) or "" in tensors:
            raise Malformed(f"the signature {name!r} has {role} without names of their own")
        known = subgraph.inputs if role == "inputs" else subgraph.outputs
        for key, index in tensors.items():
            if index not in known:
                raise Malformed(f"{key!r} of the signature {name!r} is not among the {role} of its subgraph")
        maps.append(tensors)
    if set(maps[0].values()) != set(subgraph.inputs) or len(maps[0]) != len(subgraph.inputs):
        raise Malformed(f"the signature {name!r} does not name all inputs of its subgraph")
    return LiteSignature(name, number, maps[0], maps[1])
