"""The walk over a SavedModel's graph, from the values of its inputs to those of its outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from inferd.backends.independence.budget import AnalysisBudget
from inferd.backends.independence.elements import SMALL, known
from inferd.backends.independence.operators import broadcast
from inferd.backends.independence.sizes import MixesRows, NotUnderstood, Refusal, Size, product, size_of
from inferd.backends.independence.table import OperatorTable, first_entry
from inferd.backends.independence.values import CONST, Cause, Shape, Value, constant, mixed
from inferd.backends.tensorflow.independence import (
    along,
    elementwise,
    gather,
    images,
    layout,
    lists,
    products,
    state,
    switches,
    text,
)
from inferd.backends.tensorflow.independence.control import CONTROL, Caused, controlled
from inferd.backends.tensorflow.independence.folding import folded
from inferd.backends.tensorflow.independence.items import Handle, Item, Ragged, Role, TensorList, cause_of
from inferd.backends.tensorflow.independence.node import Node, Transfer
from inferd.backends.tensorflow.independence.program import Body, Edge, GraphNode, GraphProgram, Unreadable

TABLES: tuple[OperatorTable[Transfer], ...] = (
    elementwise.TABLE,
    along.TABLE,
    products.TABLE,
    layout.TABLE,
    gather.TABLE,
    images.TABLE,
    state.TABLE,
    lists.TABLE,
    switches.TABLE,
    text.TABLE,
)
_MOST_DEPTH = 48
_MOST_SECONDS = 20.0
_NUMBERS = (1, 2, 3, 4, 5, 6, 9, 10, 17, 22)  # of types_pb2.DataType: floats, whole numbers, booleans
_NAMED = 8  # elements: constants up to this size get symbols for elements that are not known

_RANDOM = """
    Multinomial ParameterizedTruncatedNormal RandomCrop RandomGamma RandomPoisson RandomPoissonV2 RandomShuffle
    RandomStandardNormal RandomUniform RandomUniformInt TruncatedNormal StatelessMultinomial StatelessRandomBinomial
    StatelessRandomGammaV2 StatelessRandomGammaV3 StatelessRandomNormal StatelessRandomNormalV2 StatelessRandomPoisson
    StatelessRandomUniform StatelessRandomUniformFullInt StatelessRandomUniformFullIntV2 StatelessRandomUniformInt
    StatelessRandomUniformIntV2 StatelessRandomUniformV2 StatelessShuffle StatelessTruncatedNormal
    StatelessTruncatedNormalV2 StatelessParameterizedTruncatedNormal
"""
_SPARSE = """
    SparseFillEmptyRows SparseReorder SparseReshape SparseSegmentMean SparseSegmentSqrtN SparseSegmentSum SparseSlice
    SparseTensorDenseMatMul SparseToDense SparseBincount SparseConcat DeserializeSparse
"""
_SEGMENTS = "SegmentMax SegmentMean SegmentMin SegmentProd SegmentSum UnsortedSegmentMax UnsortedSegmentMin"
# What is refused on purpose.
MIXING = {
    **dict.fromkeys(_RANDOM.split(), "is random"),
    **dict.fromkeys(_SPARSE.split(), "works on a list of what is in all rows"),
    **dict.fromkeys([*_SEGMENTS.split(), "UnsortedSegmentProd", "UnsortedSegmentSum"], "joins rows by their numbers"),
    "Where": "lists positions in the whole batch",
    "Unique": "lists the values of the whole batch",
    "UniqueV2": "lists the values of the whole batch",
    "UniqueWithCounts": "lists the values of the whole batch",
    "UniqueWithCountsV2": "lists the values of the whole batch",
    "ListDiff": "lists the values of the whole batch",
    "DynamicPartition": "sorts elements into lists of the whole batch",
    "DynamicStitch": "places elements by their number in the whole batch",
    "ParallelDynamicStitch": "places elements by their number in the whole batch",
    "NonMaxSuppression": "lists the boxes of the whole batch",
    "NonMaxSuppressionV2": "lists the boxes of the whole batch",
    "NonMaxSuppressionV3": "lists the boxes of the whole batch",
    "NonMaxSuppressionV4": "lists the boxes of the whole batch",
    "NonMaxSuppressionV5": "lists the boxes of the whole batch",
    "RaggedTensorToTensor": text.LONGEST,
    "RaggedBincount": "brings together parts of other rows",
    "UnicodeDecodeWithOffsets": "lists the parts of all rows",
    "UnicodeDecode": "lists the parts of all rows",
    "StringNGrams": "lists the parts of all rows",
    "MaxPoolWithArgmax": "numbers the elements of the whole batch",
    "CropAndResize": "picks images of the batch by their number",
    "Bincount": "counts over the whole batch",
    "HistogramFixedWidth": "counts over the whole batch",
    "Requantize": "quantises by the range of the whole batch",
    "RequantizationRange": "takes the range of the whole batch",
    "QuantizeV2": "quantises by a range that may be that of the batch",
    "PyFunc": "runs Python code",
    "PyFuncStateless": "runs Python code",
    "EagerPyFunc": "runs Python code",
}
_UNFOLLOWED = {
    **dict.fromkeys(
        ["Enter", "Exit", "NextIteration", "LoopCond", "RefSwitch", "RefMerge", "RefEnter"],
        "belongs to TensorFlow 1's control flow",
    ),
    "TensorArrayV3": "belongs to TensorFlow 1's loops",
    "MapDefun": "maps a function over a list",
    "Placeholder": "is no input of the signature",
    "PlaceholderV2": "is no input of the signature",
}


class Stopped(Exception):
    """The analysis as a whole cannot go on."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.reason)
        self.cause = cause


def transfer(operator: str) -> Transfer | None:
    """The function of an operator, None if it is not understood."""
    return first_entry(TABLES, operator)


@dataclass(slots=True)
class Walk:
    """One analysis of a program. Not thread-safe.

    variables   the variables on whose shapes the result relies, by their node in the graph
    """

    program: GraphProgram
    variables: dict[str, Shape] = field(default_factory=dict)
    progress: AnalysisBudget = field(default_factory=lambda: AnalysisBudget(_MOST_SECONDS, Unreadable))
    depth: int = 0

    def fresh(self) -> Size:
        """A size that is at least 1 and does not depend on the number of rows."""
        return self.progress.fresh()

    def outputs(self, inputs: Mapping[Edge, Item], wanted: Sequence[Edge]) -> list[Item]:
        """The items of some edges of the graph, from those of the inputs. Raises Stopped and Unreadable."""
        items = dict(inputs)
        body = self.program.main
        order = _ordered(body, [edge for edge in wanted if edge not in items], items)
        self._refuse_effects(order, set())
        self._walk(order, items)
        return [_found(items, edge) for edge in wanted]

    def call(self, name: str, arguments: Sequence[Item]) -> list[Item]:
        """The results of a function of the library."""
        if self.depth >= _MOST_DEPTH:
            raise Unreadable("functions call each other too deeply")
        body = self.program.function(name)
        if len(arguments) != len(body.arguments):
            raise Unreadable(f"the function {name!r} is called with {len(arguments)} arguments")
        items: dict[Edge, Item] = {}
        for (argument, sizes), item in zip(body.arguments, arguments, strict=True):
            _agree(argument, sizes, item)
            items[argument, 0] = self._named(item)
        self.depth += 1
        try:
            order = _ordered(body, [*body.results, *((name, 0) for name in body.effects)], items)
            self._walk(order, items)
        finally:
            self.depth -= 1
        return [_found(items, edge) for edge in body.results]

    def _refuse_effects(self, nodes: Iterable[GraphNode], seen: set[str]) -> None:
        """Raises Stopped if one of the nodes, or of the functions that they call, does more than compute: then what
        variables hold is not known, and runs are not repeatable."""
        for node in nodes:
            called = []
            if self.program.called(node.operator):
                called.append(node.operator)
            elif node.effects and node.operator not in state.EFFECTS:
                reason = MIXING.get(node.operator, "keeps state, or changes a variable or the world outside")
                raise Stopped(Cause(node.operator, node.name, reason, node.operator in MIXING))
            for attribute in node.functions:
                value = node.attribute(attribute)
                functions = [value.func] if value.WhichOneof("value") == "func" else value.list.func
                called += [function.name for function in functions]
            for name in called:
                if name not in seen:
                    seen.add(name)
                    self._refuse_effects(self.program.function(name).nodes.values(), seen)

    def _walk(self, order: Sequence[GraphNode], items: dict[Edge, Item]) -> None:
        for proto in order:
            self.progress.step()
            node = Node(proto, [_found(items, edge) for edge in proto.inputs], self.progress.number)
            results = self._results(node)
            if proto.operator in state.VARIABLES:
                results = [self._variable(proto.name, results[0])]
            cause = Cause(proto.operator, proto.name, "has an output that is not understood", understood=False)
            for index in range(proto.outputs):
                if (proto.name, index) in items:
                    continue  # an input of the signature
                items[proto.name, index] = self._named(results[index] if index < len(results) else mixed(cause))

    def _variable(self, name: str, item: Item) -> Item:
        """A variable, whose shape is noted: a checkpoint may hold another one than the graph says."""
        if self.depth:  # cannot be asked for
            return replace(item, shape=None) if isinstance(item, (Handle, Value)) else item
        if isinstance(item, (Handle, Value)) and item.shape is not None:
            self.variables[name] = item.shape
        return item

    def _named(self, item: Item) -> Item:
        """Elements of small constants that are not known become symbols, so that shapes can be made of them."""
        if isinstance(item, Value) and item.kind is CONST and item.known is None and item.shape is not None:
            count = product(item.shape).number
            if count is not None and 0 < count <= _NAMED:
                array = np.empty(count, dtype=object)
                for i in range(count):
                    array[i] = self.progress.fresh(None)
                return replace(item, known=array.reshape([size.number or 1 for size in item.shape]))
        return item

    def _results(self, node: Node) -> Sequence[Item]:
        try:
            return self._computed(node)
        except Caused as error:
            cause = error.cause
        except (Refusal, TypeError, ValueError, IndexError, AttributeError, KeyError, ArithmeticError) as error:
            if _constant_function(node):
                return [constant(None)] * node.outputs
            refusal = isinstance(error, Refusal)
            reason = str(error) if refusal else f"makes the analysis fail ({type(error).__name__})"
            understood = isinstance(error, Refusal) and error.understood
            cause = Cause(node.operator, node.proto.name, reason, understood)
        return [mixed(cause, _mixed_shape(node))] * node.outputs

    def _computed(self, node: Node) -> Sequence[Item]:
        if self.program.called(node.operator):
            return self.call(node.operator, node.items)
        never = switches.dead(node)
        if never is not None:
            return never
        switched = switches.TABLE.get(node.operator)
        if switched is not None:  # also with inputs that may mix rows: they may be on a side that is never taken
            return _listed(switched(node))
        controls = controlled(node, self.call)
        if controls is not None:
            return controls
        if node.operator == "Const":
            return [_constant(node)]
        if node.operator in ("Identity", "IdentityN"):
            return node.items
        elements = folded(node)
        if elements is not None:
            return [known(array) for array in elements]
        for special in (text.followed, elementwise.bounded_below):
            found = special(node)
            if found is not None:
                return found
        for item in node.items:
            cause = cause_of(item)
            if cause is not None and not isinstance(item, TensorList):
                if isinstance(item, Ragged) and item.role is not Role.COUNTS and node.operator in MIXING:
                    raise MixesRows(MIXING[node.operator])
                raise Caused(cause)
        function = transfer(node.operator)
        if function is None:
            return _unknown(node)
        return _listed(function(node))


def _listed(result: Item | Sequence[Item]) -> Sequence[Item]:
    return [result] if isinstance(result, Item) else result


def _ordered(body: Body, wanted: Sequence[Edge], given: Mapping[Edge, Item]) -> list[GraphNode]:
    """The nodes that are needed for some edges, each after those that it needs. Edges that are given need none."""
    order: list[GraphNode] = []
    done: dict[str, bool] = {}  # False while the node's own needs are visited
    for start, _ in wanted:
        waiting = [start]
        while waiting:
            name = waiting[-1]
            if done.get(name):
                waiting.pop()
                continue
            node = body.nodes.get(name)
            if node is None:
                if (name, 0) in given:  # an argument of a function
                    waiting.pop()
                    continue
                raise Unreadable(f"there is no node {name!r}")
            if name in done:
                waiting.pop()
                done[name] = True
                order.append(node)
                continue
            done[name] = False
            needs = [source for source, index in node.inputs if (source, index) not in given]
            for need in (*needs, *node.controls):
                state_of_need = done.get(need)
                if state_of_need is False:
                    cause = Cause(node.operator, node.name, "is part of a loop of TensorFlow 1", understood=False)
                    raise Stopped(cause)
                if state_of_need is None:
                    waiting.append(need)
    return order


def _found(items: Mapping[Edge, Item], edge: Edge) -> Item:
    item = items.get(edge)
    if item is None:
        raise Unreadable(f"no node makes {edge[0]}:{edge[1]}")
    return item


def _agree(name: str, sizes: Sequence[int] | None, item: Item) -> None:
    """Raises Unreadable if a function's file gives an argument a fixed size where it depends on the number of rows: the
    runtime may put the fixed number in its place."""
    if sizes is None or not isinstance(item, Value) or not item.laid_out or item.shape is None:
        return
    if len(sizes) != len(item.shape) or sizes[item.axis] >= 0:
        raise Unreadable(f"the argument {name!r} of a function is said to have the shape {list(sizes)}")


def _constant(node: Node) -> Value:
    from tensorflow.python.framework.tensor_util import MakeNdarray

    tensor = node.proto.attribute("value").tensor
    if tensor.tensor_shape.unknown_rank:
        raise NotUnderstood("holds a constant of unknown shape")
    sizes = [int(dim.size) for dim in tensor.tensor_shape.dim]
    if any(size < 0 for size in sizes):
        raise NotUnderstood("holds a constant of unknown shape")
    shape = tuple(map(size_of, sizes))
    if tensor.dtype in _NUMBERS and int(np.prod(sizes, dtype=object)) <= SMALL:
        array = np.asarray(MakeNdarray(tensor))
        if array.dtype.kind in "bi" or (array.dtype.kind == "u" and array.dtype.itemsize < 8):
            return Value(CONST, shape, known=array if array.dtype.kind == "b" else array.astype(np.int64))
        if array.dtype in (np.float32, np.float64):
            return Value(CONST, shape, known=array)
    return constant(shape)


def _constant_function(node: Node) -> bool:
    """Whether the node computes nothing but a function of constants, and has no effect."""
    plain = all(isinstance(item, Value) and item.kind is CONST for item in node.items)
    pure = not node.proto.effects and not node.proto.functions and node.operator not in _UNFOLLOWED
    return plain and pure and bool(node.items)


def _unknown(node: Node) -> list[Item]:
    if node.operator in _UNFOLLOWED:
        raise NotUnderstood(_UNFOLLOWED[node.operator])
    if _constant_function(node):
        return [constant(None)] * node.outputs
    if node.operator in MIXING:
        raise MixesRows(MIXING[node.operator])
    raise NotUnderstood("is no operator that the analysis knows")


def _rank(item: Item) -> int | None:
    if isinstance(item, Ragged) and item.role in (Role.PARTS, Role.ROW_IDS):
        return 1
    if isinstance(item, Value) and item.shape is not None:
        return len(item.shape)
    return None


def _mixed_shape(node: Node) -> Shape | None:
    """The shape of a result that may mix rows: known only for single numbers and what is computed from them."""
    if node.operator in CONTROL or not node.items:
        return None
    if node.operator in ("Size", "Rank"):
        return ()
    if node.operator in along.REDUCTIONS and not node.boolean("keep_dims"):
        axes, rank = node.items[1], _rank(node.items[0])
        if isinstance(axes, Value) and axes.known is not None and rank is not None and axes.known.dtype.kind in "iu":
            reduced = {int(axis) % rank for axis in axes.known.reshape(-1)} if rank else set()
            return () if len(reduced) == rank else None
    if node.operator in elementwise.ONE_BY_ONE or node.operator == "Cast":
        shapes = [item.shape for item in node.items if isinstance(item, Value)]
        if len(shapes) == len(node.items) and all(shape == () for shape in shapes):
            return broadcast([()])
    return None
