"""How a LiteRT model is called: its signatures with the tensors behind their names, and what operators must know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from inferd.backends.api import DEFAULT_SIGNATURE, LoadError, Signature, TensorSpec
from inferd.backends.litert.graph import LiteGraph, LiteSubgraph, LiteTensor, Quantisation
from inferd.wire.dtypes import DType

DTYPES: Mapping[str, DType] = MappingProxyType(
    {
        "FLOAT32": DType.FP32, "FLOAT16": DType.FP16, "FLOAT64": DType.FP64, "BFLOAT16": DType.BF16,
        "INT8": DType.INT8, "INT16": DType.INT16, "INT32": DType.INT32, "INT64": DType.INT64,
        "UINT8": DType.UINT8, "UINT16": DType.UINT16, "UINT32": DType.UINT32, "UINT64": DType.UINT64,
        "BOOL": DType.BOOL, "STRING": DType.STRING,
    }
)  # fmt: skip
"""The element types that can be sent, by the format's names."""

_STATE = frozenset(["ASSIGN_VARIABLE"])
_CALLS = ("subgraph", "then_subgraph_index", "else_subgraph_index", "cond_subgraph_index", "body_subgraph_index")
_MOST_NOTES = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """A signature and the tensors behind its names: indices in the subgraph. `named`: the file has a signature of this
    name; without, the subgraph is the first one and is called by its tensors."""

    signature: Signature
    subgraph: int
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    named: bool

    def narrowed(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Entry:
        """The same with other descriptions of the tensors."""
        return replace(self, signature=replace(self.signature, inputs=inputs, outputs=outputs))


def entries_of(graph: LiteGraph) -> tuple[Entry, ...]:
    """The signatures of a model, the default one first. Raises LoadError for tensors that cannot be sent."""
    found = [
        _entry(graph, signature.name, signature.subgraph, signature.inputs, signature.outputs, named=True)
        for signature in graph.signatures
        if signature.name
    ]
    if not found:
        main = graph.subgraphs[0]
        inputs, outputs = _names(main, main.inputs, "input"), _names(main, main.outputs, "output")
        found = [_entry(graph, DEFAULT_SIGNATURE, 0, inputs, outputs, named=False)]
    return tuple(sorted(found, key=lambda entry: entry.signature.name != DEFAULT_SIGNATURE))


def _entry(
    graph: LiteGraph, name: str, number: int, inputs: Mapping[str, int], outputs: Mapping[str, int], *, named: bool
) -> Entry:
    tensors = graph.subgraphs[number].tensors
    if "self" in inputs or not outputs:
        what = "has an input called 'self'" if "self" in inputs else "has no output"
        raise LoadError(f"the signature {name!r} {what}, which LiteRT cannot call")
    takes = tuple(_input(key, tensors[index]) for key, index in inputs.items())
    batched = any(spec.shape is not None and spec.shape[:1] == (-1,) for spec in takes)
    opened = any(spec.shape is not None and -1 in spec.shape[1:] for spec in takes)
    gives = tuple(_output(key, tensors[index], batched=batched, opened=opened) for key, index in outputs.items())
    return Entry(Signature(name, takes, gives), number, inputs, outputs, named)


def _names(subgraph: LiteSubgraph, indices: Sequence[int], role: str) -> dict[str, int]:
    """The tensors' own names; numbers for those without, and for the second of one name."""
    names: dict[str, int] = {}
    for i, index in enumerate(indices):
        name = subgraph.tensors[index].name
        names[f"{role}_{i}" if not name or name in names else name] = index
    return names


def _dtype(role: str, name: str, tensor: LiteTensor) -> DType:
    dtype = DTYPES.get(tensor.type)
    if dtype is None:
        raise LoadError(f"{role} {name!r} is of type {tensor.type}; only tensors of {', '.join(DTYPES)} can be served")
    return dtype


def _input(name: str, tensor: LiteTensor) -> TensorSpec:
    return TensorSpec(name, _dtype("input", name, tensor), tensor.shape or ())


def _output(name: str, tensor: LiteTensor, *, batched: bool, opened: bool) -> TensorSpec:
    """What an output is. Where the file does not say which sizes vary, it has those of a single row: 1 stands for any
    number of rows if the inputs are batched; and if inputs have further open sizes, every size may be another one."""
    shape = tensor.shape
    if shape and not tensor.told:
        if opened:
            shape = (-1,) * len(shape)
        elif batched and shape[0] == 1:
            shape = (-1, *shape[1:])
    return TensorSpec(name, _dtype("output", name, tensor), shape)


def keeps_state(graph: LiteGraph) -> bool:
    """Whether a run of a signature writes into variables that later runs read. Those that are filled once, at the
    first run (CALL_ONCE), are not meant."""
    todo = [signature.subgraph for signature in graph.signatures] or [0]
    seen: set[int] = set()
    while todo:
        number = todo.pop()
        if number in seen:
            continue
        seen.add(number)
        for operator in graph.subgraphs[number].operators:
            if operator.name in _STATE:
                return True
            todo += [operator.options[key] for key in _CALLS if key in operator.options]
    return False


def notes_on(entries: Sequence[Entry], graph: LiteGraph) -> tuple[str, ...]:
    """What a client must know of quantised inputs and outputs, a sentence for each."""
    notes: list[str] = []
    for entry in entries:
        tensors = graph.subgraphs[entry.subgraph].tensors
        for role, indices in (("input", entry.inputs), ("output", entry.outputs)):
            for name, index in indices.items():
                note = _note(role, name, tensors[index])
                if note and note not in notes:
                    notes.append(note)
    return tuple(notes[:_MOST_NOTES])


def _note(role: str, name: str, tensor: LiteTensor) -> str:
    quantised: Quantisation | None = tensor.quantisation
    if quantised is None or len(quantised.scales) != 1 or DTYPES[tensor.type] in (DType.FP32, DType.FP16):
        return ""
    scale, zero, dtype = f"{quantised.scales[0]:.9g}", quantised.zero_points[0], DTYPES[tensor.type].name
    if role == "input":
        shift = f" {'-' if zero < 0 else '+'} {abs(zero)}" if zero else ""
        return f"input {name!r} is quantised: send {dtype} numbers, round(value / {scale}){shift}"
    number = f"(number {'+' if zero < 0 else '-'} {abs(zero)})" if zero else "number"
    return f"output {name!r} is quantised: value = {scale} * {number}, number is {dtype}"
