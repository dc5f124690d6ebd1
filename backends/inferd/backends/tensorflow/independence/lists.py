"""Lists of tensors, as loops over time use them: each tensor is one step of time."""

from __future__ import annotations

import numpy as np

from inferd.backends.independence import operators as rules
from inferd.backends.independence.elements import known
from inferd.backends.independence.layout import without_axes
from inferd.backends.independence.sizes import ONE, MixesRows, NotUnderstood, Size
from inferd.backends.independence.values import CONST, ROWS, Value, constant, data, fixed, like, mixed, shaped
from inferd.backends.tensorflow.independence.items import Item, TensorList, cause_of
from inferd.backends.tensorflow.independence.node import Node, new_table

TABLE = new_table()


def _list(node: Node) -> TensorList:
    item = node.item(0)
    if not isinstance(item, TensorList):
        raise NotUnderstood("reads what is no list of tensors")
    return item


def _length(node: Node, index: int) -> Size:
    length = node.size(index)
    if length.batched:
        raise MixesRows("makes a list of as many tensors as there are rows")
    return length


@TABLE.add("TensorListReserve")
def reserve(node: Node) -> Item:
    return TensorList(None, _length(node, 1))


@TABLE.add("TensorListFromTensor")
def from_tensor(node: Node) -> Item:
    value = node.x
    if data(value).kind is ROWS and value.axis == 0:
        raise MixesRows("takes apart the rows")
    length = shaped(value)[0]
    return TensorList(without_axes(rules.resized(value, {0: ONE}, "takes apart"), {0}), length)


@TABLE.add("TensorListGetItem")
def get_item(node: Node) -> Value:
    items = _list(node)
    fixed(node.input(1), "a place in a list")
    if items.element is None:
        raise NotUnderstood("reads from a list that was never written")
    return items.element


@TABLE.add("TensorListSetItem")
def set_item(node: Node) -> Item:
    items, value = _list(node), data(node.input(2))
    fixed(node.input(1), "a place in a list")
    length = None if node.boolean("resize_if_index_out_of_bounds") else items.length
    element = value if items.element is None else same_layout(items.element, value)
    return TensorList(element, length)


@TABLE.add("TensorListStack")
def stack(node: Node) -> Value:
    items = _list(node)
    cause = cause_of(items)
    if cause is not None:
        return mixed(cause)
    if items.element is None:
        raise NotUnderstood("reads from a list that was never written")
    if items.length is None:
        raise NotUnderstood("stacks a list of unknown length")
    element = items.element
    return like(element, [items.length, *shaped(element)], element.axis + 1)


@TABLE.add("TensorListLength")
def list_length(node: Node) -> Value:
    items = _list(node)
    return constant([]) if items.length is None else known(np.array(items.length, dtype=object))


def same_layout(a: Value, b: Value) -> Value:
    """A value that stands for both: the same kind, the same shape, the rows at the same place."""
    for value in (a, b):
        if value.cause is not None:
            return value
    if a.kind is not b.kind or a.kind not in (CONST, ROWS):
        raise MixesRows("has items that treat rows differently")
    if a.shape != b.shape or (a.kind is ROWS and a.layout != b.layout):
        raise NotUnderstood("has items of different shape")
    return Value(a.kind, a.shape, a.axis, a.outer, a.inner)
