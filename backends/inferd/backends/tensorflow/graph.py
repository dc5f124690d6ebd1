"""Reads a SavedModel's graph: its signatures, and whether a run writes into variables or can block."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from inferd.backends.api import DEFAULT_SIGNATURE, Array, LoadError, Signature, TensorSpec
from inferd.backends.checks import agree
from inferd.wire.dtypes import DType

# By TensorFlow's name. Resources, variants, complex and quantized types cannot be sent.
_DTYPES = {
    "DT_BOOL": DType.BOOL,
    "DT_UINT8": DType.UINT8,
    "DT_UINT16": DType.UINT16,
    "DT_UINT32": DType.UINT32,
    "DT_UINT64": DType.UINT64,
    "DT_INT8": DType.INT8,
    "DT_INT16": DType.INT16,
    "DT_INT32": DType.INT32,
    "DT_INT64": DType.INT64,
    "DT_HALF": DType.FP16,
    "DT_FLOAT": DType.FP32,
    "DT_DOUBLE": DType.FP64,
    "DT_BFLOAT16": DType.BF16,
    "DT_STRING": DType.STRING,
}
# TensorFlow's own signatures: `__saved_model_init_op`, `__saved_model_train_op`.
_INTERNAL = "__saved_model_"
_WRITES = re.compile(
    r"Assign(Add|Sub)?(VariableOp)?|Resource(Sparse)?(Scatter|Apply).*|Scatter(Nd)?(Add|Sub|Mul|Div|Min|Max|Update).*"
    r"|StridedSliceAssign|ResourceStridedSliceAssign|LookupTable(Insert|Remove).*|CountUpTo|ResourceCountUpTo"
)
_WAITS = re.compile(
    r".*(PyFunc|Queue|Iterator|Dataset|Barrier|Unstage|Recv|Collective|RemoteCall|Rpc|ReadFile|ReaderRead|Sql).*"
)


@dataclass(frozen=True, slots=True)
class Served:
    """A signature, and how it is run.

    feeds      names of the input tensors in the graph, in the order of the signature's inputs
    fetches    names of the output tensors in the graph, in the order of the signature's outputs
    defaults   values of the optional inputs, by input name
    """

    signature: Signature
    feeds: tuple[str, ...]
    fetches: tuple[str, ...]
    defaults: Mapping[str, Array] = field(default_factory=dict)

    def fed(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """The inputs, completed with the defaults."""
        return {**self.defaults, **inputs} if len(inputs) != len(self.feeds) else inputs


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """What a run of the served signatures does.

    writes   it changes variables or tables that later runs read
    waits    it may block on files, queues or Python functions
    """

    writes: bool
    waits: bool


def read_signatures(
    types: Any, meta_graph: Any, value: Callable[[Any], Array], declared: Sequence[Signature]
) -> tuple[tuple[Served, ...], tuple[str, ...]]:
    """The signatures that can be served, the default one first, and notes about the others.

    `types` is TensorFlow's DataType enum, `meta_graph` a MetaGraphDef; `value` turns a TensorProto into an array.
    Raises LoadError if no signature can be served or if a declared one contradicts the model.
    """
    served: list[Served] = []
    notes: list[str] = []
    for name in sorted(meta_graph.signature_def, key=lambda n: (n != DEFAULT_SIGNATURE, n)):
        if name.startswith(_INTERNAL):
            continue
        definition = meta_graph.signature_def[name]
        try:
            inputs, feeds = _tensors(types, definition.inputs, "input")
            outputs, fetches = _tensors(types, definition.outputs, "output")
        except LoadError as refused:
            notes.append(f"signature {name!r} is not served: {refused}")
            continue
        if not outputs:
            continue
        defaults = {key: value(tensor) for key, tensor in definition.defaults.items() if key in definition.inputs}
        inputs = tuple(replace(spec, optional=spec.name in defaults) for spec in inputs)
        served.append(Served(Signature(name, inputs, outputs, definition.method_name), feeds, fetches, defaults))
    if not served:
        raise LoadError("; ".join(notes) or "the SavedModel has no signature: save it with signatures=...")
    return _declared(served, declared), tuple(notes)


def _tensors(types: Any, infos: Mapping[str, Any], role: str) -> tuple[tuple[TensorSpec, ...], tuple[str, ...]]:
    """The specs of a signature's inputs or outputs, and their names in the graph. `role`: "input" or "output"."""
    specs = []
    names = []
    for key in sorted(infos):
        info = infos[key]
        encoding = info.WhichOneof("encoding")
        if encoding != "name":
            what = {"coo_sparse": "a sparse tensor", "composite_tensor": "a composite tensor (ragged, sparse)"}
            raise LoadError(f"{role} {key!r} is {what.get(str(encoding), 'no tensor')}, which cannot travel")
        type_name = types.Name(info.dtype)
        dtype = _DTYPES.get(type_name.removesuffix("_REF"))
        if dtype is None:
            raise LoadError(f"{role} {key!r} has the element type {type_name}, which cannot travel")
        shape = info.tensor_shape
        dims = None if shape.unknown_rank else tuple(d.size if d.size >= 0 else -1 for d in shape.dim)
        specs.append(TensorSpec(key, dtype, dims))
        names.append(info.name)
    return tuple(specs), tuple(names)


def _declared(served: Sequence[Served], declared: Sequence[Signature]) -> tuple[Served, ...]:
    """The model's signatures, narrowed by the declared ones. A declaration may fix dimensions; it cannot rename tensors
    or change element types."""
    by_name = {s.signature.name: s for s in served}
    for wanted in declared:
        found = by_name.get(wanted.name)
        if found is None:
            raise LoadError(f"signature {wanted.name!r} is declared, but the model has {', '.join(by_name)}")
        signature = Signature(
            wanted.name,
            _narrowed(found.signature.inputs, wanted.inputs, "input"),
            _narrowed(found.signature.outputs, wanted.outputs, "output"),
            found.signature.method_name,
        )
        by_name[wanted.name] = replace(found, signature=signature)
    return tuple(by_name.values())


def _narrowed(found: Sequence[TensorSpec], wanted: Sequence[TensorSpec], role: str) -> tuple[TensorSpec, ...]:
    by_name = {s.name: s for s in found}
    for spec in wanted:
        if spec.name not in by_name:
            raise LoadError(f"{role} {spec.name!r} is declared, but the model has {', '.join(by_name) or 'none'}")
        by_name[spec.name] = agree(role, spec, by_name[spec.name])
    return tuple(by_name.values())


def read_facts(graph_def: Any, served: Iterable[Served]) -> GraphFacts:
    """What a run does: the operators on which the signatures' outputs depend, functions that they call included."""
    nodes = {node.name: node for node in graph_def.node}
    waiting = [_node_name(name) for s in served for name in s.fetches]
    seen: set[str] = set()
    operators: set[str] = set()
    functions: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        node = nodes[name]
        waiting.extend(_node_name(source) for source in node.input)
        _note(node, operators, functions)
    library = {f.signature.name: f for f in graph_def.library.function}
    called = list(functions)
    while called:
        function = library.get(called.pop())
        if function is None:
            continue
        for node in function.node_def:
            more: set[str] = set()
            _note(node, operators, more)
            called.extend(more - functions)
            functions |= more
    # The outputs do not depend on the first assignment of a variable, so it is not among these operators.
    return GraphFacts(
        writes=any(_WRITES.fullmatch(op) for op in operators), waits=any(_WAITS.fullmatch(op) for op in operators)
    )


def _note(node: Any, operators: set[str], functions: set[str]) -> None:
    """Adds a node's operator, and the functions that the node calls."""
    operators.add(node.op)
    functions.add(node.op)  # in old graphs, a node calls a function by using its name as the operator
    for value in node.attr.values():
        field_set = value.WhichOneof("value")
        if field_set == "func":
            functions.add(value.func.name)
        elif field_set == "list":
            functions.update(f.name for f in value.list.func)


def _node_name(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]
