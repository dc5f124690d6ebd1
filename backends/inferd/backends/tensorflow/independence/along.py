"""Operators in which elements meet along some axes: reductions, softmax, normalisation, sorting, cumulative sums."""

from __future__ import annotations

from inferd.backends.independence import operators as rules
from inferd.backends.independence.sizes import MixesRows, NotUnderstood
from inferd.backends.independence.values import (
    CONST,
    ROWS,
    Cause,
    Value,
    axis_of,
    data,
    fixed,
    like,
    mixed,
    shaped,
)
from inferd.backends.tensorflow.independence.node import Node, new_table

TABLE = new_table()
REDUCTIONS = ("All", "Any", "EuclideanNorm", "Max", "Mean", "Min", "Prod", "Sum")


@TABLE.add(*REDUCTIONS)
def reduction(node: Node) -> Value:
    return rules.reduced(node.x, node.numbers(1), node.boolean("keep_dims"))


@TABLE.add("ReduceJoin")
def reduce_join(node: Node) -> Value:
    axes = node.numbers(1) or range(len(shaped(node.x)))
    return rules.reduced(node.x, axes, node.boolean("keep_dims"), "joins texts")


@TABLE.add("L2Loss")
def l2_loss(node: Node) -> Value:
    return rules.reduced(node.x, range(len(shaped(node.x))), keep=False)


@TABLE.add("ArgMax", "ArgMin")
def arg_extreme(node: Node) -> Value:
    return rules.reduced(node.x, [node.number(1)], keep=False)


@TABLE.add("Softmax", "LogSoftmax")
def softmax(node: Node) -> Value:
    return rules.along(node.x, [-1], "normalises")


@TABLE.add("Cumsum", "Cumprod", "CumulativeLogsumexp")
def cumulative(node: Node) -> Value:
    return rules.along(node.x, [node.number(1)], "accumulates")


@TABLE.add("TopKV2")
def top_k(node: Node) -> list[Value]:
    width = node.size(1)
    if width.batched:
        raise MixesRows("takes as many elements as there are rows")
    return [rules.resized(node.x, {-1: width}, "sorts")] * 2


@TABLE.add("ReverseV2")
def reverse(node: Node) -> Value:
    return rules.along(node.x, node.numbers(1), "reverses")


@TABLE.add("Reverse")
def old_reverse(node: Node) -> Value:
    which = node.input(1).known
    if which is None or which.dtype != bool or which.size != len(shaped(node.x)):
        raise NotUnderstood("reverses axes that are not known")
    return rules.along(node.x, [i for i, turned in enumerate(which.reshape(-1)) if turned], "reverses")


@TABLE.add("ReverseSequence")
def reverse_sequence(node: Node) -> Value:
    batch, time = axis_of(node.x, node.integer("batch_dim")), axis_of(node.x, node.integer("seq_dim"))
    return rules.reversed_sequences(node.x, node.input(1), batch, time)


@TABLE.add("Roll")
def roll(node: Node) -> Value:
    fixed(node.input(1), "the shift")
    return rules.along(node.x, node.numbers(2), "shifts")


@TABLE.add("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def batch_normalisation(node: Node) -> list[Value]:
    if node.boolean("is_training"):
        raise MixesRows("normalises by the statistics of the batch (training mode)")
    for value in node.given[1:]:
        fixed(value, "a weight")
    rank = len(shaped(node.x))
    if rank not in (4, 5):
        raise NotUnderstood("normalises a tensor that has not four or five axes")
    first = node.string("data_format").startswith("NC")
    result = rules.along(node.x, [1 if first else -1], "has a weight for each element")
    cause = Cause(node.operator, node.proto.name, "has an output that is not followed", understood=False)
    return [result, *[mixed(cause)] * (node.outputs - 1)]


@TABLE.add("LRN")
def local_response_normalisation(node: Node) -> Value:
    return rules.along(node.x, [-1], "normalises")


@TABLE.add("MatrixBandPart")
def band(node: Node) -> Value:
    for index in (1, 2):
        fixed(node.input(index), "the width of the band")
    return rules.along(node.x, [-1, -2], "cuts out a band")


@TABLE.add("MatrixDiagPart")
def diagonal(node: Node) -> Value:
    shape = shaped(data(node.x))
    if len(shape) < 2:
        raise NotUnderstood("takes the diagonal of what is no matrix")
    if node.x.kind is ROWS and node.x.axis >= len(shape) - 2:
        raise MixesRows("takes a diagonal over the batch axis")
    return like(node.x, [*shape[:-2], node.width(shape[-2], shape[-1])])


@TABLE.add("MatrixDiag")
def from_diagonal(node: Node) -> Value:
    return _as_diagonal(node)


def _as_diagonal(node: Node) -> Value:
    shape = shaped(data(node.x))
    if not shape:
        raise NotUnderstood("has no diagonal")
    if node.x.kind is ROWS and node.x.axis == len(shape) - 1:
        raise MixesRows("makes a diagonal of the batch axis")
    return like(node.x, [*shape, shape[-1]])


@TABLE.add("MatrixDiagV2", "MatrixDiagV3")
def from_diagonals(node: Node) -> Value:
    """As MatrixDiag, where there is only the main diagonal and the matrix is as large as it."""
    if node.numbers(1) != [0] or node.numbers(2) != [-1] or node.numbers(3) != [-1]:
        raise NotUnderstood("has diagonals that are not followed")
    fixed(node.input(4), "the padding")
    return _as_diagonal(node)


@TABLE.add("DenseBincount")
def bincount(node: Node) -> Value:
    """How often each number occurs: in each row for two axes, in all elements for one."""
    value, weights = data(node.x), data(node.input(2))
    shape, width = shaped(value), node.size(1)
    if weights.kind is ROWS and (value.kind is not ROWS or weights.layout != value.layout):
        raise MixesRows("has weights of other rows")
    empty = weights.kind is CONST and weights.shape is not None and 0 in [size.number for size in weights.shape]
    if weights.kind is CONST and not empty and value.kind is ROWS:
        raise NotUnderstood("has weights that are the same for all rows")
    if width.batched:
        raise MixesRows("counts up to the number of rows")
    if len(shape) == 1:
        return rules.resized(value, {0: width}, "counts")
    if len(shape) != 2:
        raise NotUnderstood("counts in a tensor that has not one or two axes")
    return rules.resized(value, {1: width}, "counts")


@TABLE.add("LowerBound", "UpperBound")
def search(node: Node) -> Value:
    """For each row of values, their places in the row of the sorted ones."""
    stored, wanted = data(node.input(0)), data(node.input(1))
    if len(shaped(stored)) != 2 or len(shaped(wanted)) != 2:
        raise NotUnderstood("searches in what is no table")
    for value in (stored, wanted):
        if value.kind is ROWS and value.axis:
            raise MixesRows("searches over the batch axis")
    if stored.kind is not wanted.kind:
        raise MixesRows("has a constant with as many elements as there are rows")
    if stored.kind is ROWS and stored.layout != wanted.layout:
        raise MixesRows("searches in other rows")
    return like(wanted, shaped(wanted))
