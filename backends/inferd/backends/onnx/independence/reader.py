"""Reads an OnnxProgram from a model's bytes. Weights are skipped by their length.

Bounded in nodes, ranks, depth and fields. What a protobuf parser would merge, or what two readers could read
differently, is Malformed: the graph that is analysed must be the graph that runs. The field numbers are those of
onnx.proto.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from inferd.backends.independence.elements import SMALL
from inferd.backends.onnx.independence.graph import (
    AttributeReference,
    GraphInput,
    GraphNode,
    GraphTensor,
    OnnxFunction,
    OnnxGraph,
    OnnxProgram,
    domain_of,
)
from inferd.backends.onnx.messages import (
    BYTES,
    FIXED32,
    VARINT,
    Malformed,
    Source,
    number,
    text,
    typed_fields,
    varint,
)

_MOST_NODES = 50_000
_MOST_RANK = 32
_MOST_DEPTH = 16
_MOST_FIELDS = 4096  # of one attribute
_EXTERNAL = 1  # TensorProto.DataLocation
# By TensorProto.DataType: numpy's type of raw data, and the field of the elements that are not raw.
_TYPES = {1: ("<f4", 4), 6: ("<i4", 5), 7: ("<i8", 7), 9: ("?", 5), 11: ("<f8", 10)}
_FLOAT, _INT, _STRING, _TENSOR, _GRAPH, _FLOATS, _INTS, _STRINGS = (
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
)  # AttributeProto.AttributeType


@dataclass(slots=True)
class _Budget:
    """How many more nodes are read."""

    nodes: int = _MOST_NODES


def read_program(source: Source) -> OnnxProgram:
    """Reads a model. Raises Malformed or Truncated if the graph is not understood, or too large; OSError."""
    budget = _Budget()
    program = OnnxProgram()
    graphs = 0
    for field, wire, start, end in typed_fields(source, 0, source.size):
        if wire != BYTES:
            continue
        if field == 7:
            graphs += 1
            program.graph = _graph(source, start, end, budget, 0)
        elif field == 8:
            _opset(source, start, end, program.opsets)
        elif field == 25:
            key, function = _function(source, start, end, budget)
            if key in program.functions:
                raise Malformed("it has two functions of one name")
            program.functions[key] = function
    if graphs != 1:
        raise Malformed(f"it has {graphs} graphs")
    return program


def _messages(source: Source, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The length-delimited fields."""
    for field, wire, s, e in typed_fields(source, start, end):
        if wire == BYTES:
            yield field, s, e


def _opset(source: Source, start: int, end: int, opsets: dict[str, int]) -> None:
    domain, version = "", 0
    for field, wire, s, e in typed_fields(source, start, end):
        if field == 1 and wire == BYTES:
            domain = domain_of(text(source, s, e))
        elif field == 2 and wire == VARINT:
            version = number(source, s, e)
    if opsets.get(domain, version) != version:  # some converters write the same one twice
        raise Malformed("it has two versions of one operator set")
    opsets[domain] = version


def _function(source: Source, start: int, end: int, budget: _Budget) -> tuple[tuple[str, str, str], OnnxFunction]:
    names = {1: "", 10: "", 13: ""}  # name, domain, overload
    inputs, outputs = [], []
    nodes: list[GraphNode] = []
    opsets: dict[str, int] = {}
    defaults: dict[str, Any] = {}
    for field, s, e in _messages(source, start, end):
        if field in names:
            names[field] = text(source, s, e)
        elif field == 4:
            inputs.append(text(source, s, e))
        elif field == 5:
            outputs.append(text(source, s, e))
        elif field == 7:
            nodes.append(_node(source, s, e, budget, 1))
        elif field == 9:
            _opset(source, s, e, opsets)
        elif field == 11:
            name, value = _attribute(source, s, e, budget, 1)
            defaults[name] = value
    key = domain_of(names[10]), names[1], names[13]
    return key, OnnxFunction(inputs, outputs, nodes, opsets, defaults)


def _graph(source: Source, start: int, end: int, budget: _Budget, depth: int) -> OnnxGraph:
    if depth > _MOST_DEPTH:
        raise Malformed("graphs nest too deeply")
    graph = OnnxGraph()
    for field, s, e in _messages(source, start, end):
        if field == 1:
            graph.nodes.append(_node(source, s, e, budget, depth))
        elif field == 5:
            graph.tensors.append(_tensor(source, s, e))
        elif field == 15:
            graph.tensors.append(_sparse(source, s, e))
        elif field == 11:
            graph.inputs.append(_input(source, s, e))
        elif field == 12:
            graph.outputs.extend(text(source, si, ei) for inner, si, ei in _messages(source, s, e) if inner == 1)
    return graph


def _node(source: Source, start: int, end: int, budget: _Budget, depth: int) -> GraphNode:
    budget.nodes -= 1
    if budget.nodes < 0:
        raise Malformed(f"it has more than {_MOST_NODES} nodes")
    names = {3: "", 4: "", 7: "", 8: ""}  # name, operator, domain, overload
    inputs, outputs = [], []
    attributes: dict[str, Any] = {}
    truncated = False
    for field, s, e in _messages(source, start, end):
        if field in names:
            names[field] = text(source, s, e)
        elif field == 1:
            inputs.append(text(source, s, e))
        elif field == 2:
            outputs.append(text(source, s, e))
        elif field == 5:
            try:
                name, value = _attribute(source, s, e, budget, depth)
            except _TooLong:
                truncated = True
                continue
            if name in attributes:
                raise Malformed(f"a node has two attributes {name!r}")
            attributes[name] = value
    return GraphNode(
        names[4], domain_of(names[7]), names[8], names[3], tuple(inputs), tuple(outputs), attributes, truncated
    )


class _TooLong(Exception):
    """An attribute has more values than the analysis reads."""


def _attribute(source: Source, start: int, end: int, budget: _Budget, depth: int) -> tuple[str, Any]:
    name = reference = ""
    kind = count = 0
    values: dict[int, list[Any]] = {}
    for field, wire, s, e in typed_fields(source, start, end):
        count += 1
        if count > _MOST_FIELDS:
            raise _TooLong
        if field == 20 and wire == VARINT:
            kind = number(source, s, e)
        elif field == 3 and wire == VARINT:
            values.setdefault(_INT, []).append(_signed(number(source, s, e)))
        elif field == 2 and wire == FIXED32:
            values.setdefault(_FLOAT, []).append(float(_array(source, s, e, "<f4")[0]))
        elif field == 7 and wire in (FIXED32, BYTES):
            values.setdefault(_FLOATS, []).extend(_array(source, s, e, "<f4").tolist())
        elif field == 8 and wire in (VARINT, BYTES):
            values.setdefault(_INTS, []).extend(_integers(source, s, e))
        elif wire != BYTES:
            continue
        elif field == 1:
            name = text(source, s, e)
        elif field == 21:
            reference = text(source, s, e)
        elif field == 4:
            values.setdefault(_STRING, []).append(_string(source, s, e))
        elif field == 9:
            values.setdefault(_STRINGS, []).append(_string(source, s, e))
        elif field == 5:
            values.setdefault(_TENSOR, []).append(_tensor(source, s, e))
        elif field == 6:
            values.setdefault(_GRAPH, []).append(_graph(source, s, e, budget, depth + 1))
    if reference:
        return name, AttributeReference(reference)
    if not kind and len(values) == 1:
        kind = next(iter(values))  # files of the first version have no type
    if kind in (_FLOATS, _INTS, _STRINGS):
        return name, values.get(kind, [])
    found = values.get(kind, [])
    if kind in (_TENSOR, _GRAPH) and len(found) > 1:
        raise Malformed("an attribute has two values")
    if not found and kind in (_FLOAT, _INT, _STRING):
        return name, "" if kind == _STRING else 0  # proto3 leaves such values out
    return name, found[-1] if found else None


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _integers(source: Source, start: int, end: int) -> list[int]:
    """Whole numbers, packed or one. Raises _TooLong."""
    if end - start > _MOST_FIELDS:
        raise _TooLong
    data = source.read(start, end - start)
    values, position = [], 0
    while position < len(data):
        value, position = varint(data, position)
        values.append(_signed(value))
    return values


def _array(source: Source, start: int, end: int, kind: str) -> np.ndarray[Any, Any]:
    """Numbers of a fixed size, packed or one. Raises _TooLong."""
    if end - start > 8 * _MOST_FIELDS:
        raise _TooLong
    try:
        return np.frombuffer(bytes(source.read(start, end - start)), kind)
    except ValueError:
        raise Malformed("numbers end early") from None


def _string(source: Source, start: int, end: int) -> str:
    if end - start > _MOST_FIELDS:
        raise _TooLong
    return bytes(source.read(start, end - start)).decode(errors="replace")


def _sparse(source: Source, start: int, end: int) -> GraphTensor:
    """A sparse initialiser: the name is that of its values, its elements are not read."""
    name, dims = "", []
    for field, wire, s, e in typed_fields(source, start, end):
        if field == 1 and wire == BYTES:
            name = _tensor(source, s, e).name
        elif field == 3 and wire in (VARINT, BYTES):
            dims.extend(_dims(source, s, e))
    return GraphTensor(name, tuple(dims), None)


def _dims(source: Source, start: int, end: int) -> list[int]:
    if end - start > 10 * _MOST_RANK:
        raise Malformed("a tensor has too many dimensions")
    dims = _integers(source, start, end)
    if any(dim < 0 for dim in dims):
        raise Malformed("a tensor has a negative dimension")
    return dims


def _tensor(source: Source, start: int, end: int) -> GraphTensor:
    name, element, location = "", 0, 0
    dims: list[int] = []
    spans: list[tuple[int, int, int, int]] = []
    for field, wire, s, e in typed_fields(source, start, end):
        if field == 8 and wire == BYTES:
            name = text(source, s, e)
        elif field == 1 and wire in (VARINT, BYTES):
            dims.extend(_dims(source, s, e))
            if len(dims) > _MOST_RANK:
                raise Malformed("a tensor has too many dimensions")
        elif field == 2 and wire == VARINT:
            element = number(source, s, e)
        elif field == 14 and wire == VARINT:
            location = number(source, s, e)
        elif field in (4, 5, 7, 9, 10) and len(spans) <= SMALL:
            spans.append((field, wire, s, e))
    count = math.prod(dims)
    small = count <= SMALL and location != _EXTERNAL and element in _TYPES
    return GraphTensor(name, tuple(dims), _elements(source, spans, element, tuple(dims)) if small else None)


def _elements(
    source: Source, spans: list[tuple[int, int, int, int]], element: int, dims: tuple[int, ...]
) -> np.ndarray[Any, Any] | None:
    """The elements of a small tensor, None if they are not understood."""
    kind, own = _TYPES[element]
    values: list[Any] = []
    if len({field for field, *_ in spans}) > 1 or any(e - s > 16 * SMALL for _, _, s, e in spans):
        return None
    for field, wire, s, e in spans:
        if field == 9 and wire == BYTES:
            values = _array(source, s, e, kind).tolist()  # the last one counts
        elif field == own and field in (5, 7) and wire in (VARINT, BYTES):
            values.extend(_integers(source, s, e))
        elif field == own and field in (4, 10) and wire != VARINT:
            values.extend(_array(source, s, e, kind).tolist())
        else:
            return None
    if len(values) != math.prod(dims):
        return None
    try:
        return np.array(values, np.dtype(kind)).reshape(dims)
    except OverflowError:
        return None


def _input(source: Source, start: int, end: int) -> GraphInput:
    name = ""
    dims: tuple[int | str | None, ...] | None = None
    types = 0
    for field, s, e in _messages(source, start, end):
        if field == 1:
            name = text(source, s, e)
        elif field == 2:
            types += 1
            dims = _type(source, s, e)
    if types > 1:
        raise Malformed("an input has two types")
    return GraphInput(name, dims)


def _type(source: Source, start: int, end: int) -> tuple[int | str | None, ...] | None:
    """The dimensions of a tensor type, None for any other type."""
    shapes: list[tuple[int | str | None, ...]] = []
    kinds = 0
    for kind, s, e in _messages(source, start, end):
        if kind in (1, 4, 5, 8, 9):
            kinds += 1
        if kind == 1:
            for field, si, ei in _messages(source, s, e):
                if field == 2:
                    shapes.append(_shape(source, si, ei))
    if kinds > 1 or len(shapes) > 1:
        raise Malformed("an input has two types")
    return shapes[0] if shapes else None


def _shape(source: Source, start: int, end: int) -> tuple[int | str | None, ...]:
    dims: list[int | str | None] = []
    for field, s, e in _messages(source, start, end):
        if field == 1:
            dims.append(_dim(source, s, e))
            if len(dims) > _MOST_RANK:
                raise Malformed("an input has too many dimensions")
    return tuple(dims)


def _dim(source: Source, start: int, end: int) -> int | str | None:
    found: int | str | None = None
    for field, wire, s, e in typed_fields(source, start, end):
        if field == 1 and wire == VARINT:
            value = _signed(number(source, s, e))
            found = value if value > 0 else None
        elif field == 2 and wire == BYTES:
            found = text(source, s, e) or None
    return found
