"""The walk over an ONNX graph, from the values of its inputs to those of its outputs."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from inferd.backends.api import Independence, Signature
from inferd.backends.independence.budget import AnalysisBudget
from inferd.backends.independence.elements import SMALL, known
from inferd.backends.independence.operators import broadcast, merged
from inferd.backends.independence.sizes import MixesRows, N, NotUnderstood, Refusal, Size, product, size_of
from inferd.backends.independence.table import OperatorTable, first_entry
from inferd.backends.independence.values import (
    CONST,
    MIXED,
    SIZE,
    Cause,
    Shape,
    Value,
    conclusion,
    constant,
    mixed,
    rows,
    shaped,
)
from inferd.backends.onnx.independence import elementwise, layout, products, quantised, recurrent
from inferd.backends.onnx.independence.elementwise import ELEMENTWISE
from inferd.backends.onnx.independence.folding import folded
from inferd.backends.onnx.independence.graph import (
    AttributeReference,
    GraphNode,
    GraphTensor,
    OnnxFunction,
    OnnxGraph,
    OnnxProgram,
)
from inferd.backends.onnx.independence.loops import loop, scan
from inferd.backends.onnx.independence.node import Node, Transfer, tensor_value

TABLES: tuple[OperatorTable[Transfer], ...] = (
    elementwise.TABLE,
    products.TABLE,
    layout.TABLE,
    recurrent.TABLE,
    quantised.TABLE,
)
# Versions of operator sets: before the first one broadcasting was different, after the last ones nobody has looked.
_OLDEST, _NEWEST, _NEWEST_ML = 7, 26, 5
_MOST_DEPTH = 24
_MOST_SECONDS = 20.0
_STANDARD = ("", "ai.onnx.ml")
_NAMED = 8  # elements: constants up to this size get symbols for elements that are not known

# What is refused on purpose.
MIXING = {
    "DynamicQuantizeLinear": "quantises by the range of the whole batch",
    "com.microsoft:DynamicQuantizeMatMul": "quantises by the range of the whole batch",
    "com.microsoft:DynamicQuantizeLSTM": "quantises by the range of the whole batch",
    "NonZero": "lists positions in the whole batch",
    "Unique": "lists the values of the whole batch",
    "Compress": "picks rows by their number",
    "NonMaxSuppression": "lists the boxes of the whole batch",
    "StringNormalizer": "drops texts, so that those of other rows take their places",
    "StringSplit": "makes all rows as wide as the longest",
    "com.microsoft:Tokenizer": "makes all rows as wide as the longest",
    "MaxUnpool": "places elements by their number in the whole batch",
    "RandomNormal": "is random",
    "RandomNormalLike": "is random",
    "RandomUniform": "is random",
    "RandomUniformLike": "is random",
    "Bernoulli": "is random",
    "Multinomial": "is random",
}
_UNFOLLOWED = {"SequenceMap": "is a loop over a sequence"}
# Attributes of these operators may be longer than the analysis reads: none of the long ones changes which rows meet.
_LONG_ML = """
    LabelEncoder LinearClassifier LinearRegressor SVMClassifier SVMRegressor TreeEnsemble TreeEnsembleClassifier
    TreeEnsembleRegressor Scaler Imputer OneHotEncoder
"""
_LONG = frozenset(["Constant", *(f"ai.onnx.ml:{name}" for name in _LONG_ML.split())])


def transfer(operator: str) -> Transfer | None:
    """The function of an operator, None if it is not understood."""
    return first_entry(TABLES, operator)


class _Stopped(Exception):
    """The analysis as a whole cannot go on. The message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class _Scope:
    """One graph, branch or function body while it is walked.

    attributes   of the node that called the function; empty outside functions
    """

    program: OnnxProgram
    opsets: Mapping[str, int]
    values: ChainMap[str, Value]
    progress: AnalysisBudget
    attributes: Mapping[str, Any] = field(default_factory=dict)
    depth: int = 0

    def branch(self, graph: OnnxGraph, inputs: Sequence[Value] = ()) -> list[Value]:
        """The values of the outputs of a branch or a loop's body, whose inputs have these values."""
        if self.depth >= _MOST_DEPTH:
            raise NotUnderstood("nests too deeply")
        if len(graph.inputs) != len(inputs):
            raise NotUnderstood("has a branch with other inputs than it gets")
        inner = replace(self, values=self.values.new_child(), depth=self.depth + 1)
        inner.constants(graph.tensors)
        for given, value in zip(graph.inputs, inputs, strict=True):
            inner.define(given.name, value)
        inner.walk(graph.nodes)
        return [inner.value(name) for name in graph.outputs]

    def constants(self, tensors: Sequence[GraphTensor]) -> None:
        for tensor in tensors:
            self.define(tensor.name, tensor_value(tensor))

    def define(self, name: str, value: Value) -> None:
        """Gives a value a name. Elements of small constants that are not known become symbols, so that shapes can be
        made of them."""
        if name in self.values:  # also one of the graph around a branch: readers may differ in what they take
            raise _Stopped(f"two values are called {name!r}")
        if value.kind is CONST and value.known is None and value.shape is not None:
            count = product(value.shape).number
            if count is not None and 0 < count <= _NAMED:
                array = np.empty(count, dtype=object)
                for i in range(count):
                    array[i] = self.progress.fresh(None)
                shape = [size.number or 1 for size in value.shape]
                value = replace(value, known=array.reshape(shape))
        self.values[name] = value

    def value(self, name: str) -> Value:
        found = self.values.get(name)
        if found is None:
            raise _Stopped(f"no earlier node makes {name!r}")
        return found

    def walk(self, nodes: Sequence[GraphNode]) -> None:
        for proto in nodes:
            self._walk_one(proto)

    def _walk_one(self, proto: GraphNode) -> None:
        self.progress.step()
        operator = f"{proto.domain}:{proto.operator}" if proto.domain else proto.operator
        inputs = [self.value(name) if name else None for name in proto.inputs]
        results: list[Value]
        try:
            results = self._results(proto, operator, inputs)
        except (Refusal, TypeError, ValueError, IndexError, AttributeError, KeyError, ArithmeticError) as error:
            understood = isinstance(error, Refusal) and error.understood
            reason = str(error) if isinstance(error, Refusal) else f"makes the analysis fail ({type(error).__name__})"
            cause = Cause(operator, proto.shown, reason, understood)
            results = [mixed(cause, _mixed_shape(operator, inputs))] * len(proto.outputs)
        for i, name in enumerate(proto.outputs):
            if i >= len(results):
                cause = Cause(operator, proto.shown, "has an output that is not understood", understood=False)
                results.append(mixed(cause))
            if name:
                self.define(name, results[i])

    def _results(self, proto: GraphNode, operator: str, inputs: list[Value | None]) -> list[Value]:
        function = self.program.functions.get((proto.domain, proto.operator, proto.overload))
        if function is not None:
            return self._call(function, proto, inputs)
        if proto.truncated and operator not in _LONG:
            raise NotUnderstood("has attributes that are too long to read")
        node = Node(
            proto,
            operator,
            self._attributes(proto),
            inputs,
            self.opsets.get(proto.domain, 0),
            self.branch,
            self.progress.fresh,
        )
        if proto.domain == "" and node.opset < _OLDEST:
            raise NotUnderstood(f"is of operator set {node.opset}, which is too old")
        special = _special(node)
        if special is not None:
            return special
        elements = folded(node)
        if elements is not None:
            return [known(array) for array in elements]
        for value in node.given:
            if value.cause is not None:
                return [mixed(value.cause, _mixed_shape(operator, inputs))] * node.outputs
        found = transfer(operator)
        if found is not None:
            result = found(node)
            return result if isinstance(result, list) else [result]
        return [_unknown(node)] * node.outputs

    def _attributes(self, proto: GraphNode) -> Mapping[str, Any]:
        if not any(isinstance(value, AttributeReference) for value in proto.attributes.values()):
            return proto.attributes
        resolved = {}
        for name, value in proto.attributes.items():
            if not isinstance(value, AttributeReference):
                resolved[name] = value
            elif value.name in self.attributes:
                resolved[name] = self.attributes[value.name]
        return resolved

    def _call(self, function: OnnxFunction, proto: GraphNode, inputs: list[Value | None]) -> list[Value]:
        if self.depth >= _MOST_DEPTH:
            raise NotUnderstood("nests too deeply")
        if proto.truncated or len(inputs) > len(function.inputs) or len(proto.outputs) > len(function.outputs):
            raise NotUnderstood("is called with other inputs or outputs than it has")
        attributes = {**function.defaults, **self._attributes(proto)}
        inner = _Scope(
            self.program, function.opsets or self.opsets, ChainMap(), self.progress, attributes, self.depth + 1
        )
        for name, value in zip(function.inputs, inputs, strict=False):
            if value is None:
                raise NotUnderstood("is a function that is called without an input")
            inner.define(name, value)
        inner.walk(function.nodes)
        return [inner.value(name) for name in function.outputs][: len(proto.outputs)]


def _special(node: Node) -> list[Value] | None:
    """Operators that look at shapes, hold constants, or have branches."""
    if node.operator == "Constant":
        return [_constant(node)]
    if node.operator in ("Shape", "Size") and node.x.shape is not None:
        if node.operator == "Size":
            return [known(np.array(product(node.x.shape), dtype=object))]
        array = np.empty(len(node.x.shape), dtype=object)
        array[:] = node.x.shape
        end = node.integer("end", 0) if "end" in node.attributes else None
        return [known(array[slice(node.integer("start", 0), end)])]
    if node.operator == "If":
        return _if(node)
    if node.operator in ("Loop", "Scan"):
        for value in node.given:
            if value.cause is not None:
                return [mixed(value.cause)] * node.outputs
        return loop(node) if node.operator == "Loop" else scan(node)
    if node.operator in _UNFOLLOWED:
        raise NotUnderstood(_UNFOLLOWED[node.operator])
    if any(isinstance(value, OnnxGraph) for value in node.attributes.values()):
        raise NotUnderstood("has a graph of its own")
    return None


def _constant(node: Node) -> Value:
    if len(node.attributes) != 1 and not node.proto.truncated:
        raise NotUnderstood("holds no constant that is understood")
    for name, value in node.attributes.items():
        if name == "value" and isinstance(value, GraphTensor):
            return tensor_value(value)
        if name in ("value_int", "value_ints") and isinstance(value, (int, list)) and np.size(value) <= SMALL:
            return known(np.array(value, np.int64))
        if name in ("value_float", "value_floats") and isinstance(value, (float, list)) and np.size(value) <= SMALL:
            return known(np.array(value, np.float32))
    return constant(None)


def _if(node: Node) -> list[Value]:
    condition = node.x
    branches = [node.attributes.get("then_branch"), node.attributes.get("else_branch")]
    if condition.kind is MIXED and condition.cause is not None:
        return [mixed(condition.cause)] * node.outputs
    if condition.known is not None and condition.known.dtype == bool and condition.known.size == 1:
        branches = [branches[0 if condition.known.reshape(-1)[0] else 1]]
    elif condition.kind is SIZE:
        raise MixesRows("chooses a branch by the number of rows")
    elif condition.kind is not CONST:
        raise MixesRows("chooses a branch by the rows")
    results = [node.branch(graph) for graph in branches if isinstance(graph, OnnxGraph)]
    if len(results) != len(branches) or any(len(result) != node.outputs for result in results):
        raise NotUnderstood("has branches that are not understood")
    if len(results) == 1:
        return results[0]
    return [_either(a, b) for a, b in zip(*results, strict=True)]


def _either(a: Value, b: Value) -> Value:
    for value in (a, b):
        if value.cause is not None:
            return mixed(value.cause)
    return merged(a, b)


def _unknown(node: Node) -> Value:
    """The result of an operator that is not in the tables: a constant if all that it reads is constant."""
    if node.operator in MIXING:
        raise MixesRows(MIXING[node.operator])
    if node.proto.domain in _STANDARD and node.inputs and all(value.kind is CONST for value in node.given):
        return constant(None)
    raise NotUnderstood("is no operator that the analysis knows")


def _mixed_shape(operator: str, inputs: Sequence[Value | None]) -> Shape | None:
    """The shape of a result whose elements are mixed, if it follows from the shapes of the inputs."""
    if operator not in ELEMENTWISE and operator not in ("Cast", "Identity"):
        return None
    try:
        return broadcast([shaped(value) for value in inputs if value is not None])
    except Refusal:
        return None


def analyse(program: OnnxProgram, signature: Signature) -> Independence:
    """Whether the rows of the signature's outputs are independent. Never raises for what the program holds.

    The batched inputs are those whose first dimension is -1 in `signature`. First, all open dimensions count as
    different; if that proves nothing, those of one name count as equal, and the result names them.
    """
    finding = _analyse(program, signature, {})
    if finding.proven:
        return finding
    groups: dict[str, list[tuple[str, int]]] = {}
    for given in program.graph.inputs:
        for axis, dim in enumerate(given.dims or ()):
            if isinstance(dim, str) and not (axis == 0 and _batched(signature, given.name)):
                groups.setdefault(dim, []).append((given.name, axis))
    equal = {name: group for name, group in groups.items() if len(group) > 1}
    if equal:
        again = _analyse(program, signature, equal)
        if again.proven:
            return replace(again, equal=tuple(tuple(group) for group in equal.values()))
    return finding


def _batched(signature: Signature, name: str) -> bool:
    return any(spec.name == name and spec.shape is not None and spec.shape[:1] == (-1,) for spec in signature.inputs)


def _analyse(
    program: OnnxProgram, signature: Signature, equal: Mapping[str, Sequence[tuple[str, int]]]
) -> Independence:
    progress = AnalysisBudget(_MOST_SECONDS, NotUnderstood)
    scope = _Scope(program, program.opsets, ChainMap(), progress)
    try:
        _refuse_strange(program)
        scope.constants(program.graph.tensors)
        shared = {name: progress.fresh() for name in equal}
        specs = {spec.name: spec for spec in signature.inputs}
        for given in program.graph.inputs:
            if given.name in scope.values:
                continue  # has a default, which requests cannot replace
            if given.name not in specs or given.dims is None or specs[given.name].shape is None:
                raise _Stopped(f"input {given.name!r} has no known rank")
            sizes: list[Size] = []
            for dim in given.dims:
                if isinstance(dim, int):
                    sizes.append(size_of(dim))
                else:
                    sizes.append(shared[dim] if dim in shared else progress.fresh())
            if _batched(signature, given.name):
                if not sizes or isinstance(given.dims[0], int):
                    raise _Stopped(f"the first dimension of input {given.name!r} is fixed")
                scope.define(given.name, rows([N, *sizes[1:]], 0))
            else:
                scope.define(given.name, constant(sizes))
        scope.walk(program.graph.nodes)
        return conclusion({spec.name: scope.value(spec.name) for spec in signature.outputs})
    except _Stopped as stopped:
        return Independence(False, reason=str(stopped), understood=False)
    except Refusal as refusal:
        return Independence(False, reason=str(refusal), understood=refusal.understood)
    except RecursionError:
        return Independence(False, reason="the graph nests too deeply", understood=False)


def _refuse_strange(program: OnnxProgram) -> None:
    for opsets in (program.opsets, *(function.opsets for function in program.functions.values())):
        version = opsets.get("", _OLDEST)
        if not _OLDEST <= version <= _NEWEST:
            raise _Stopped(f"ONNX's operator set {version} is not one from {_OLDEST} to {_NEWEST}")
        if opsets.get("ai.onnx.ml", 1) > _NEWEST_ML:
            raise _Stopped(f"the operator set {opsets['ai.onnx.ml']} of ai.onnx.ml is newer than {_NEWEST_ML}")
    for domain, operator, _ in program.functions:
        if domain in _STANDARD or transfer(f"{domain}:{operator}") is not None or domain.startswith("com.microsoft"):
            raise _Stopped(f"a function of the model replaces the operator {operator!r}")
