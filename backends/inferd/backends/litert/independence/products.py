"""Matrix products, convolutions, pooling, resizing of images.

Where weights are int8 and inputs are floats, the kernels quantise each row of the inputs by its own range, so rows stay
apart.
"""

from __future__ import annotations

from inferd.backends.independence import layout
from inferd.backends.independence import operators as rules
from inferd.backends.independence.sizes import MixesRows, NotUnderstood, Size, product, size_of
from inferd.backends.independence.values import ROWS, Value, apart, by_row, data, fixed, like, shaped
from inferd.backends.litert.independence.node import Node, new_table

TABLE = new_table()
_SAME = 0  # Padding


@TABLE.add("FULLY_CONNECTED")
def fully_connected(node: Node) -> Value:
    """x [..., k] times the transposed weights [units, k]. Unless `keep_num_dims` is set, x is taken as a matrix of rows
    of k elements, whatever its own axes are."""
    x, weights = data(node.x), node.input(1)
    fixed(weights, "a weight")
    fixed(node.optional(2), "a bias")
    if len(shaped(weights)) != 2 or node.integer("weights_format"):
        raise NotUnderstood("has weights in an order that is not understood")
    units, depth = shaped(weights)
    shape = shaped(x)
    if node.integer("keep_num_dims"):
        if not shape:
            raise NotUnderstood("multiplies a scalar")
        apart(x, [-1], "sums")
        return like(x, [*shape[:-1], units])
    first = product(shape).over(depth)
    if first is None:
        raise NotUnderstood("divides its input into parts that are not known")
    matrix = layout.reshaped(x, [first, depth])
    apart(matrix, [-1], "sums")
    return like(matrix, [first, units])


@TABLE.add("BATCH_MATMUL")
def batch_matmul(node: Node) -> Value:
    def turned(value: Value, setting: str) -> Value:
        rank = len(shaped(data(value)))
        if not node.integer(setting) or rank < 2:
            return value
        return layout.transposed(value, [*range(rank - 2), rank - 1, rank - 2])

    return rules.matmul(turned(node.input(0), "adj_x"), turned(node.input(1), "adj_y"))


def _window(node: Node, size: Size, kernel: Size, name: str) -> Size:
    """The size of an axis over which a window of `kernel` places goes. `name`: "h", "w" or "d"."""
    stride, dilation = node.integer(f"stride_{name}"), node.integer(f"dilation_{name}", 1)
    if stride < 1 or dilation < 1:
        raise NotUnderstood("has a window that is not understood")
    if node.integer("padding") == _SAME:
        span = size - 1
    else:
        span = size - (kernel - 1) * dilation - 1
    steps = span.over(size_of(stride))
    if steps is None and span.number is not None and span.number >= 0:
        steps = size_of(span.number // stride)
    return node.width(size, kernel, stride, dilation, node.integer("padding")) if steps is None else steps + 1


@TABLE.add("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D")
def convolution(node: Node) -> Value:
    value, weights = data(node.x), shaped(node.input(1))
    shape = shaped(value)
    deep = node.operator == "CONV_3D"
    rank = 5 if deep else 4
    if len(shape) != rank or len(weights) != rank:
        raise NotUnderstood("has a window of another rank than its input")
    names = ("d", "h", "w") if deep else ("h", "w")
    kernel = weights[:3] if deep else weights[1:3]
    space = [_window(node, size, k, name) for size, k, name in zip(shape[1:-1], kernel, names, strict=True)]
    channels = weights[0] if node.operator == "CONV_2D" else weights[-1]
    return rules.windowed(value, node.inputs[1:], [*space[1:], channels], space[0])


@TABLE.add("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D")
def pool(node: Node) -> Value:
    shape = shaped(data(node.x))
    if len(shape) != 4:
        raise NotUnderstood("pools a tensor that has not four axes")
    height = _window(node, shape[1], size_of(node.integer("filter_h")), "h")
    width = _window(node, shape[2], size_of(node.integer("filter_w")), "w")
    return rules.windowed(node.x, [], [width, shape[3]], height)


@TABLE.add("TRANSPOSE_CONV")
def transposed_convolution(node: Node) -> Value:
    """The first input is the shape of the output."""
    target, weights, value = node.sizes(0), node.input(1), data(node.input(2))
    shape = shaped(value)
    if len(shape) != 4 or len(target) != 4 or len(shaped(weights)) != 4:
        raise NotUnderstood("has a window of another rank than its input")
    if target[0] != shape[0]:
        raise MixesRows("has a fixed size along the batch axis")
    if any(size.batched for size in target[1:]):
        raise MixesRows("gives the number of rows to another axis")
    return rules.windowed(value, [weights, node.optional(3)], [target[2], shaped(weights)[0]], target[1])


@TABLE.add("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
def resize(node: Node) -> Value:
    return rules.resized_images(data(node.x), node.sizes(1))


@TABLE.add("EMBEDDING_LOOKUP")
def embedding(node: Node) -> Value:
    ids, table = node.input(0), node.input(1)
    if data(ids).kind is ROWS:
        by_row(ids, "the numbers")
    return layout.gathered(table, ids, 0)
