"""The walk over the subgraphs of a LiteRT model, from the values of the inputs to those of the outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from inferd.backends.independence.budget import AnalysisBudget
from inferd.backends.independence.elements import SMALL, known
from inferd.backends.independence.operators import broadcast
from inferd.backends.independence.sizes import MixesRows, NotUnderstood, Refusal, size_of
from inferd.backends.independence.table import OperatorTable, first_entry
from inferd.backends.independence.values import CONST, Cause, Shape, Value, constant, mixed, shaped
from inferd.backends.litert.flatbuffer import Bytes
from inferd.backends.litert.graph import LiteGraph, LiteOperator, LiteSubgraph, LiteTensor
from inferd.backends.litert.independence import control, elementwise, layout, products
from inferd.backends.litert.independence.elementwise import ELEMENTWISE
from inferd.backends.litert.independence.folding import KNOWN_TYPES, folded
from inferd.backends.litert.independence.node import Node, Transfer

TABLES: tuple[OperatorTable[Transfer], ...] = (elementwise.TABLE, products.TABLE, layout.TABLE, control.TABLE)
_MOST_DEPTH = 16
_NUMPY: Mapping[str, str] = {"INT32": "<i4", "INT64": "<i8", "BOOL": "?", "FLOAT32": "<f4"}

# What is refused on purpose.
MIXING: Mapping[str, str] = {
    "WHERE": "lists positions in the whole batch",
    "UNIQUE": "lists the values of the whole batch",
    "NON_MAX_SUPPRESSION_V4": "lists the boxes of the whole batch",
    "NON_MAX_SUPPRESSION_V5": "lists the boxes of the whole batch",
    "custom:TFLite_Detection_PostProcess": "lists the boxes of the whole batch",
    "SEGMENT_SUM": "adds up rows",
    "UNSORTED_SEGMENT_SUM": "adds up rows",
    "UNSORTED_SEGMENT_PROD": "multiplies rows",
    "UNSORTED_SEGMENT_MAX": "compares rows",
    "UNSORTED_SEGMENT_MIN": "compares rows",
    "RANDOM_STANDARD_NORMAL": "is random",
    "RANDOM_UNIFORM": "is random",
    "MULTINOMIAL": "is random",
    "ASSIGN_VARIABLE": "keeps state",
}
_RECURRENT = """
    UNIDIRECTIONAL_SEQUENCE_LSTM BIDIRECTIONAL_SEQUENCE_LSTM UNIDIRECTIONAL_SEQUENCE_RNN BIDIRECTIONAL_SEQUENCE_RNN
    LSTM RNN SVDF
"""
_STATES = frozenset(_RECURRENT.split())


def transfer(operator: str) -> Transfer | None:
    """The function of an operator, None if it is not understood."""
    return first_entry(TABLES, operator)


class Stopped(Exception):
    """The analysis as a whole cannot go on. The message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """One analysis of a model. `refused`: why operators were refused, also those that no output needs: LiteRT runs them
    too, and one that mixes rows may fail in a batch."""

    graph: LiteGraph
    content: Bytes
    progress: AnalysisBudget
    refused: list[Cause] = field(default_factory=list)

    def outputs(self, number: int, inputs: Sequence[Value], depth: int = 0) -> dict[int, Value]:
        """The values of the outputs of a subgraph whose inputs have these values, by the numbers of its tensors. Raises
        Stopped, NotUnderstood."""
        if depth >= _MOST_DEPTH:
            raise NotUnderstood("nests too deeply")
        if not 0 <= number < len(self.graph.subgraphs):
            raise NotUnderstood("calls a subgraph that is not there")
        subgraph = self.graph.subgraphs[number]
        if len(subgraph.inputs) != len(inputs):
            raise NotUnderstood("calls a subgraph with other inputs than it has")
        values: dict[int, Value] = {}
        for index, value in zip(subgraph.inputs, inputs, strict=True):
            self._define(values, subgraph, index, value)
        for operator in subgraph.operators:
            self._step(values, subgraph, operator, depth)
        return {index: self._value(values, subgraph, index) for index in subgraph.outputs}

    def _called(self, number: int, inputs: Sequence[Value], depth: int) -> list[Value]:
        found = self.outputs(number, inputs, depth + 1)
        return [found[index] for index in self.graph.subgraphs[number].outputs]

    def _step(self, values: dict[int, Value], subgraph: LiteSubgraph, operator: LiteOperator, depth: int) -> None:
        self.progress.step()
        tensors = subgraph.tensors
        given_as = [tensors[index] if index >= 0 else None for index in operator.inputs]
        inputs = [self._value(values, subgraph, index) if index >= 0 else None for index in operator.inputs]
        gives = [tensors[index] for index in operator.outputs]
        node = Node(
            operator.name, operator.options, inputs, given_as, gives,
            lambda number, given: self._called(number, given, depth),
        )  # fmt: skip
        try:
            results = _results(node)
        except (Refusal, TypeError, ValueError, IndexError, AttributeError, KeyError, ArithmeticError) as error:
            understood = isinstance(error, Refusal) and error.understood
            reason = str(error) if isinstance(error, Refusal) else f"makes the analysis fail ({type(error).__name__})"
            cause = Cause(operator.name, _shown(gives), reason, understood)
            results = [mixed(cause, _mixed_shape(node))] * len(gives)
            if gives:
                self.refused.append(cause)
        for i, index in enumerate(operator.outputs):
            if i >= len(results):
                cause = Cause(operator.name, _shown(gives), "has an output that is not understood", understood=False)
                self._define(values, subgraph, index, mixed(cause))
            else:
                self._define(values, subgraph, index, results[i])

    def _define(self, values: dict[int, Value], subgraph: LiteSubgraph, index: int, value: Value) -> None:
        tensor = subgraph.tensors[index]
        if index in values or tensor.constant is not None:
            raise Stopped(f"two operators make the tensor {tensor.name!r}")
        if value.known is not None and (tensor.type not in KNOWN_TYPES or tensor.quantisation is not None):
            if value.kind is not CONST:
                cause = Cause("", tensor.name, "computes with the number of rows", understood=True)
                value = mixed(cause, value.shape)
            else:
                value = replace(value, known=None)
        scales = tensor.quantisation
        several = scales is not None and len(scales.scales) > 1
        if scales is not None and several and value.laid_out and scales.axis == value.axis:
            # A scale for each element of the axis would be one for each row.
            value = mixed(Cause("", tensor.name, "has a scale for each row", understood=True), value.shape)
        values[index] = value

    def _value(self, values: dict[int, Value], subgraph: LiteSubgraph, index: int) -> Value:
        found = values.get(index)
        if found is None:
            tensor = subgraph.tensors[index]
            if tensor.variable:
                found = mixed(Cause("", tensor.name, "is kept from one run to the next", understood=True))
            elif tensor.constant is None:
                raise Stopped(f"no earlier operator makes the tensor {tensor.name!r}")
            else:
                found = self._constant(tensor)
            values[index] = found
        return found

    def _constant(self, tensor: LiteTensor) -> Value:
        shape = tensor.shape or ()
        value = constant([size_of(size) for size in shape])
        code = _NUMPY.get(tensor.type)
        span, count = tensor.constant, math.prod(shape)
        if code is None or span is None or count > SMALL or tensor.quantisation is not None or tensor.sparse:
            return value
        elements = np.frombuffer(self.content.read(span.start, span.size), code)
        return replace(known(elements.reshape(shape)), shape=value.shape) if elements.size == count else value


def _shown(gives: Sequence[LiteTensor]) -> str:
    return gives[0].name if gives else ""


def _results(node: Node) -> list[Value]:
    if node.operator in _STATES or any(tensor is not None and tensor.variable for tensor in node.given_as):
        raise NotUnderstood("keeps states of as many rows as the file says")
    special = _special(node)
    if special is not None:
        return [special]
    elements = folded(node)
    if elements is not None:
        return [known(array) for array in elements]
    for value in node.given:
        if value.cause is not None:
            return [mixed(value.cause, _mixed_shape(node))] * node.outputs
    found = transfer(node.operator)
    if found is None:
        return [_unknown(node)] * node.outputs
    result = found(node)
    return result if isinstance(result, list) else [result]


def _special(node: Node) -> Value | None:
    """Operators that look at shapes alone."""
    if node.operator == "SHAPE" and node.x.shape is not None:
        array = np.empty(len(node.x.shape), dtype=object)
        array[:] = node.x.shape
        return known(array)
    if node.operator == "RANK" and node.x.shape is not None:
        return known(np.array(len(node.x.shape)))
    return None


def _unknown(node: Node) -> Value:
    """The result of an operator that is not in the tables."""
    if node.operator in MIXING:
        raise MixesRows(MIXING[node.operator])
    raise NotUnderstood("is no operator that the analysis knows")


def _mixed_shape(node: Node) -> Shape | None:
    """The shape of a result whose elements are mixed, if it follows from the shapes of the inputs."""
    if node.operator not in ELEMENTWISE and node.operator != "CAST":
        return None
    try:
        return broadcast([shaped(value) for value in node.given])
    except Refusal:
        return None
