"""Operators that pick elements by numbers, and that write to places that are given by numbers."""

from __future__ import annotations

from inferd.backends.independence import layout
from inferd.backends.independence.sizes import MixesRows, NotUnderstood
from inferd.backends.independence.values import CONST, ROWS, Value, constant, data, like, shaped
from inferd.backends.tensorflow.independence.node import Node, new_table

TABLE = new_table()


@TABLE.add("Gather")
def old_gather(node: Node) -> Value:
    return layout.gathered(node.input(0), node.input(1), 0)


@TABLE.add("GatherV2")
def gather(node: Node) -> Value:
    batch = node.integer("batch_dims")
    axis = node.number(2)
    return layout.gathered_by_batch(node.input(0), node.input(1), axis, batch)


@TABLE.add("GatherNd")
def gather_nd(node: Node) -> Value:
    return layout.gathered_slices(node.input(0), node.input(1), 0)


@TABLE.add("ResourceGather")
def resource_gather(node: Node) -> Value:
    if node.integer("batch_dims"):
        raise NotUnderstood("picks by batches")
    return layout.gathered(constant(node.handle(0).shape), node.input(1), 0)


@TABLE.add("ResourceGatherNd")
def resource_gather_nd(node: Node) -> Value:
    return layout.gathered_slices(constant(node.handle(0).shape), node.input(1), 0)


@TABLE.add(
    "TensorScatterUpdate",
    "TensorScatterAdd",
    "TensorScatterSub",
    "TensorScatterMax",
    "TensorScatterMin",
)
def tensor_scatter(node: Node) -> Value:
    target, index, new = (data(node.input(i)) for i in range(3))
    shape, where = shaped(target), shaped(index)
    if target.kind is CONST and index.kind is CONST and new.kind is CONST:
        return constant(shape)
    depth = where[-1].number if where else None
    by_constant = target.kind is ROWS and new.kind is ROWS and index.kind is CONST and depth is not None
    if by_constant and target.axis >= (depth or 0) and target.layout == new.layout:
        return like(target, shape)
    raise MixesRows("writes elements across the batch axis")


@TABLE.add("ScatterNd")
def scatter_nd(node: Node) -> Value:
    return layout.scattered_slices(data(node.input(0)), data(node.input(1)), node.sizes(2))
