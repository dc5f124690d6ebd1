"""Reads ONNX files without a framework: inputs, outputs, external data, and whether the file is complete.

A model is a protobuf message. Its fields are walked one by one and weights are skipped by their length, so a large file
costs only a few small reads. The field numbers are those of onnx.proto. A file is cut short if a field ends behind the
end of the file, or if the graph or the operator set is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from inferd.backends.onnx import messages
from inferd.backends.onnx.messages import Malformed, Source, Truncated

_EXTERNAL = 1  # TensorProto.DataLocation
_MAX_DEPTH = 32  # nested graphs and types
_MOST_BYTES = 1 << 62  # more than a file can have: products of sizes end here, or they would grow without end
_DIGITS = 19  # of an offset or a length
_SEARCHED = 1 << 12  # nodes of up to so many bytes are searched for a word before they are walked

TENSOR_TYPES = {
    1: "float", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "double", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
    17: "float8e4m3fn", 18: "float8e4m3fnuz", 19: "float8e5m2", 20: "float8e5m2fnuz", 21: "uint4", 22: "int4",
    23: "float4e2m1", 24: "float8e8m0", 25: "uint2", 26: "int2",
}  # fmt: skip
_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
         17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ValueInfo:
    """An input or output of the graph.

    kind      its type as ONNX Runtime writes it ("tensor(float)", "seq(map(int64,tensor(float)))"), "" if the file does
              not say
    element   the tensor's element type (onnx.TensorProto.DataType), 0 if it is not a tensor
    shape     -1 for a dimension that is not fixed; None if the file declares no shape
    """

    name: str
    kind: str
    element: int
    shape: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class ExternalData:
    """The weights of one tensor, stored in another file.

    location   path of the file as written in the model
    end        size in bytes that the file must have at least
    nested     the tensor belongs to a node, a branch or a function, not to the main graph's initializers
    """

    tensor: str
    location: str
    end: int
    nested: bool


@dataclass(slots=True)
class ModelHeader:
    """What a model's file says about its inputs, outputs and weights.

    external       weights in other files
    initializers   names of the main graph's weights; inputs of these names need not be sent
    """

    inputs: list[ValueInfo] = field(default_factory=list)
    outputs: list[ValueInfo] = field(default_factory=list)
    external: list[ExternalData] = field(default_factory=list)
    initializers: set[str] = field(default_factory=set)

    def locations(self) -> dict[str, int]:
        """The external files: the smallest size in bytes that each must have, by location as written in the model."""
        ends: dict[str, int] = {}
        for data in self.external:
            ends[data.location] = max(data.end, ends.get(data.location, 0))
        return ends


def read_header(source: Source) -> ModelHeader:
    """Reads the description of a model; weights are skipped. Raises Truncated, Malformed or OSError."""
    header = ModelHeader()
    seen = set()
    format_version = 0
    for number, start, end in messages.fields(source, 0, source.size):
        seen.add(number)
        if number == 1:
            format_version = messages.number(source, start, end)
        elif number == 7:
            _graph(source, start, end, header, 0)
        elif number == 25:  # FunctionProto: its nodes may hold constants
            for inner, s, e in messages.fields(source, start, end):
                if inner == 7:
                    _node(source, s, e, header, 1)
    if 7 not in seen:
        raise Truncated("it holds no graph")
    if 8 not in seen and format_version >= 3:  # older formats need none
        raise Truncated("it holds no operator set, which comes after the graph")
    return header


def external_path(model_file: Path, location: str) -> Path:
    """The path of the external file at `location`. Raises Malformed if it is outside the model's directory."""
    path = PurePosixPath(location)
    if not location or path.is_absolute() or ".." in path.parts or "\0" in location:
        raise Malformed(f"external data at {location!r}, outside the model's directory")
    return model_file.parent / path


def _graph(source: Source, start: int, end: int, header: ModelHeader, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise Malformed("graphs nest too deeply")
    for number, s, e in messages.fields(source, start, end):
        if number == 1:
            # External data needs the key "location". To search for it is ten times faster than to walk every attribute.
            if e - s > _SEARCHED or b"location" in bytes(source.read(s, e - s)):
                _node(source, s, e, header, depth)
        elif number == 5:
            name = _tensor(source, s, e, header, nested=depth > 0)
            if depth == 0:
                header.initializers.add(name)
        elif number == 15:
            _sparse(source, s, e, header, depth)
        elif depth == 0 and number == 11:
            header.inputs.append(_value(source, s, e))
        elif depth == 0 and number == 12:
            header.outputs.append(_value(source, s, e))


def _node(source: Source, start: int, end: int, header: ModelHeader, depth: int) -> None:
    for number, s, e in messages.fields(source, start, end):
        if number != 5:
            continue
        for inner, si, ei in messages.fields(source, s, e):
            if inner in (5, 10):
                _tensor(source, si, ei, header, nested=True)
            elif inner in (6, 11):
                _graph(source, si, ei, header, depth + 1)
            elif inner in (22, 23):
                _sparse(source, si, ei, header, depth)


def _sparse(source: Source, start: int, end: int, header: ModelHeader, depth: int) -> None:
    for number, s, e in messages.fields(source, start, end):
        if number in (1, 2):
            name = _tensor(source, s, e, header, nested=True)
            if depth == 0 and number == 1:
                header.initializers.add(name)


def _tensor(source: Source, start: int, end: int, header: ModelHeader, *, nested: bool) -> str:
    """The name of a TensorProto. If its data is external, adds it to `header`."""
    name = ""
    elements = 1
    element = location = 0
    entries: dict[str, str] = {}
    for number, s, e in messages.fields(source, start, end):
        if number == 8:
            name = messages.text(source, s, e)
        elif number == 1:
            for dim in messages.numbers(source, s, e):
                elements = min(elements * dim, _MOST_BYTES)
        elif number == 2:
            element = messages.number(source, s, e)
        elif number == 14:
            location = messages.number(source, s, e)
        elif number == 13:
            pair = {n: messages.text(source, si, ei) for n, si, ei in messages.fields(source, s, e)}
            entries[pair.get(1, "")] = pair.get(2, "")
    if location == _EXTERNAL:
        span = {key: entries[key] for key in ("offset", "length") if entries.get(key)}
        if not all(value.isascii() and value.isdigit() and len(value) <= _DIGITS for value in span.values()):
            raise Malformed(f"external data of {name[:100]!r} has an offset or length that is no number of bytes")
        offset = int(span.get("offset", 0))
        length = int(span["length"]) if "length" in span else (elements * _BITS.get(element, 8) + 7) // 8
        header.external.append(ExternalData(name, entries.get("location", ""), offset + length, nested))
    return name


def _value(source: Source, start: int, end: int) -> ValueInfo:
    name, kind, element = "", "", 0
    shape: tuple[int, ...] | None = None
    for number, s, e in messages.fields(source, start, end):
        if number == 1:
            name = messages.text(source, s, e)
        elif number == 2:
            kind, element, shape = _type(source, s, e, 0)
    return ValueInfo(name, kind, element, shape)


def _type(source: Source, start: int, end: int, depth: int) -> tuple[str, int, tuple[int, ...] | None]:
    if depth > _MAX_DEPTH:
        raise Malformed("types nest too deeply")
    for number, s, e in messages.fields(source, start, end):
        if number in (1, 8):  # tensor, sparse tensor
            element = 0
            shape: tuple[int, ...] | None = None
            for inner, si, ei in messages.fields(source, s, e):
                if inner == 1:
                    element = messages.number(source, si, ei)
                elif inner == 2:
                    shape = tuple(_dim(source, sd, ed) for n, sd, ed in messages.fields(source, si, ei) if n == 1)
            text = TENSOR_TYPES.get(element, f"type {element}")
            return (f"tensor({text})", element, shape) if number == 1 else (f"sparse_tensor({text})", 0, None)
        if number in (4, 9):  # sequence, optional
            inside = [_type(source, si, ei, depth + 1)[0] for n, si, ei in messages.fields(source, s, e) if n == 1]
            return f"{'seq' if number == 4 else 'optional'}({','.join(inside)})", 0, None
        if number == 5:  # map
            parts = [
                TENSOR_TYPES.get(messages.number(source, si, ei), "?")
                if n == 1
                else _type(source, si, ei, depth + 1)[0]
                for n, si, ei in messages.fields(source, s, e)
            ]
            return f"map({','.join(parts)})", 0, None
    return "", 0, None


def _dim(source: Source, start: int, end: int) -> int:
    """The size of a dimension, -1 if it is a symbol, an expression or not given."""
    for number, s, e in messages.fields(source, start, end):
        if number == 1:
            value = messages.number(source, s, e)
            return value if value < 1 << 63 else -1
    return -1
