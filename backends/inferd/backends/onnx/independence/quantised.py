"""ONNX Runtime's own operators on quantised tensors, as its QOperator format writes them.

All scales and zero points must be the same for all rows, and have one element: a scale for each element of an axis
could be one for each row.
"""

from __future__ import annotations

from collections.abc import Sequence

from inferd.backends.independence import layout
from inferd.backends.independence import operators as rules
from inferd.backends.independence.sizes import ONE, NotUnderstood, product
from inferd.backends.independence.table import OperatorTable
from inferd.backends.independence.values import CONST, Value, axis_of, data, fixed, shaped
from inferd.backends.onnx.independence.node import Node, Transfer, microsoft
from inferd.backends.onnx.independence.products import general_product

TABLE: OperatorTable[Transfer] = OperatorTable()


def _scales(node: Node, indices: Sequence[int]) -> None:
    """Raises Refusal unless these inputs are left out or constants of one element."""
    for index in indices:
        value = node.optional(index)
        fixed(value, "a scale or zero point")
        if value is not None and product(shaped(value)) != 1:
            raise NotUnderstood("has a scale or zero point for each element of an axis")


@TABLE.add(*microsoft("QLinearAdd QLinearMul"))
def arithmetic(node: Node) -> Value:
    _scales(node, [1, 2, 4, 5, 6, 7])
    return rules.elementwise([node.input(0), node.input(3)])


@TABLE.add(*microsoft("QLinearSigmoid QLinearLeakyRelu"))
def activation(node: Node) -> Value:
    _scales(node, [1, 2, 3, 4])
    return rules.elementwise([node.x])


@TABLE.add(*microsoft("QLinearWhere"))
def where(node: Node) -> Value:
    _scales(node, [2, 3, 5, 6, 7, 8])
    return rules.elementwise([node.input(0), node.input(1), node.input(4)])


@TABLE.add(*microsoft("QLinearSoftmax"))
def softmax(node: Node) -> Value:
    _scales(node, [1, 2, 3, 4])
    axis = axis_of(node.x, node.integer("axis", -1))
    # Before version 13 of Softmax the axes from `axis` on were taken together.
    last = axis + 1 if node.integer("opset", 0) >= 13 else len(shaped(node.x))
    return rules.along(node.x, range(axis, last), "normalises")


@TABLE.add(*microsoft("QLinearGlobalAveragePool"))
def global_average_pool(node: Node) -> Value:
    _scales(node, [1, 2, 3, 4])
    shape = shaped(node.x)
    if len(shape) < 3 or node.integer("channels_last", 0):
        raise NotUnderstood("pools a tensor that has not its channels on axis 1")
    return rules.windowed(node.x, [], [ONE] * (len(shape) - 2), shape[1])


@TABLE.add(*microsoft("QLinearConcat"))
def concat(node: Node) -> Value:
    if "axis" not in node.attributes or len(node.inputs) % 3 != 2:
        raise NotUnderstood("has no axis, or a tensor without its scale")
    _scales(node, [i for i in range(len(node.inputs)) if i % 3 != 2])
    return layout.joined([node.input(i) for i in range(2, len(node.inputs), 3)], node.integer("axis", 0))


@TABLE.add(*microsoft("QGemm"))
def gemm(node: Node) -> Value:
    a, b, c = data(node.input(0)), data(node.input(3)), node.optional(6)
    _scales(node, [1, 2, 7, 8])
    if a.kind is CONST or b.kind is not CONST:
        raise NotUnderstood("multiplies by weights that are no constant")
    for index in (4, 5):  # may be one for each column of the weights
        fixed(node.optional(index), "a scale or zero point")
    return general_product(node, a, b, c)
