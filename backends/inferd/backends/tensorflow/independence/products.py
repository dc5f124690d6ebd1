"""Matrix products and convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from inferd.backends.independence import layout
from inferd.backends.independence import operators as rules
from inferd.backends.independence.sizes import MixesRows, NotUnderstood, Size, size_of
from inferd.backends.independence.values import ROWS, Value, apart, constant, data, fixed, like, shaped
from inferd.backends.tensorflow.independence.node import Node, new_table

TABLE = new_table()


def _turned(value: Value, turned: bool) -> Value:
    """The matrix, or each matrix of a stack, with its axes exchanged."""
    rank = len(shaped(data(value)))
    if not turned:
        return value
    return layout.transposed(value, [*range(rank - 2), rank - 1, rank - 2])


@TABLE.add("MatMul")
def matmul(node: Node) -> Value:
    a, b = data(node.input(0)), data(node.input(1))
    if len(shaped(a)) != 2 or len(shaped(b)) != 2:
        raise NotUnderstood("multiplies what is no matrix")
    return rules.matmul(_turned(a, node.boolean("transpose_a")), _turned(b, node.boolean("transpose_b")))


@TABLE.add("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def batch_matmul(node: Node) -> Value:
    a, b = data(node.input(0)), data(node.input(1))
    if len(shaped(a)) < 2 or len(shaped(b)) < 2:
        raise NotUnderstood("multiplies what is no matrix")
    return rules.matmul(_turned(a, node.boolean("adj_x")), _turned(b, node.boolean("adj_y")))


_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@TABLE.add("Einsum")
def einsum(node: Node) -> Value:
    equation = node.string("equation").replace(" ", "")
    if "..." in equation:
        equation = _spelled_out(equation, node.given)
    return rules.einsum(equation, node.given)


def _spelled_out(equation: str, values: Sequence[Value]) -> str:
    """The equation with letters in place of the dots, which stand for leading axes that are broadcast."""
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    letters = [letter for letter in _LETTERS if letter not in equation]
    counts = [len(shaped(value)) - len(term.replace("...", "")) for term, value in zip(terms, values, strict=True)]
    dotted = [count for term, count in zip(terms, counts, strict=True) if "..." in term]
    if not arrow or not dotted or min(dotted) < 0 or max(dotted) > len(letters):
        raise NotUnderstood("sums by an equation that is not understood")
    most = max(dotted)
    named = "".join(letters[:most])
    if "..." not in right and most:
        raise NotUnderstood("sums by an equation that is not understood")
    spelled = [term.replace("...", named[most - count :]) for term, count in zip(terms, counts, strict=True)]
    return ",".join(spelled) + "->" + right.replace("...", named)


def _spatial(node: Node, rank: int) -> tuple[list[int], int]:
    """The axes over which a window moves, and the axis of the channels."""
    if node.string("data_format").startswith("NC"):
        return list(range(2, rank)), 1
    return list(range(1, rank - 1)), rank - 1


def _per_axis(node: Node, name: str, rank: int) -> list[int]:
    """An attribute with a number for each axis. The batch axis must have 1."""
    given = node.integers(name)
    if not given and name == "dilations":
        return [1] * rank
    if len(given) != rank:
        raise NotUnderstood(f"has an attribute {name!r} of another length than its input has axes")
    if given[0] != 1:
        raise MixesRows("moves its window over the batch axis")
    return given


def _windows(node: Node, size: Size, kernel: Size, stride: int, dilation: int, axis: int, padding: str) -> Size:
    """How many windows fit into an axis."""
    if padding == "SAME":
        if stride == 1:
            return size
        if size.number is not None:
            return size_of(-(-size.number // stride))
        exact = size.over(size_of(stride))
        return node.width(size, stride, "SAME") if exact is None else exact
    extra = 0
    if padding == "EXPLICIT":
        pads = node.integers("explicit_paddings")
        extra = pads[2 * axis] + pads[2 * axis + 1]
    elif padding != "VALID":
        raise NotUnderstood("pads in a way that is not understood")
    if kernel.number is None:
        raise NotUnderstood("has a kernel of unknown size")
    span = size + extra - dilation * (kernel.number - 1) - 1
    if stride == 1:
        return span + 1
    if span.number is not None:
        return size_of(span.number // stride + 1)
    return node.width(size, extra, kernel.number, stride, dilation)


def _convolved(node: Node, rank: int, channels: Size, kernel: Sequence[Size]) -> Value:
    value = data(node.x)
    fixed(node.input(1), "a weight")
    shape = shaped(value)
    if len(shape) != rank:
        raise NotUnderstood(f"has an input that has not {rank} axes")
    axes, last = _spatial(node, rank)
    strides, dilations = _per_axis(node, "strides", rank), _per_axis(node, "dilations", rank)
    padding = node.string("padding")
    apart(value, range(1, rank), "has a window")
    new = list(shape)
    new[last] = channels
    for i, axis in enumerate(axes):
        new[axis] = _windows(node, shape[axis], kernel[i], strides[axis], dilations[axis], axis, padding)
    if value.kind is not ROWS:
        return constant(new)
    return like(value, new)


@TABLE.add("Conv2D", "Conv3D")
def convolution(node: Node) -> Value:
    weight = shaped(node.input(1))
    rank = 4 if node.operator == "Conv2D" else 5
    if len(weight) != rank:
        raise NotUnderstood("has a weight of another rank")
    return _convolved(node, rank, weight[-1], weight[: rank - 2])


@TABLE.add("DepthwiseConv2dNative")
def depthwise(node: Node) -> Value:
    weight = shaped(node.input(1))
    if len(weight) != 4:
        raise NotUnderstood("has a weight of another rank")
    return _convolved(node, 4, weight[2] * weight[3], weight[:2])


@TABLE.add("Conv2DBackpropInput", "Conv3DBackpropInputV2")
def transposed_convolution(node: Node) -> Value:
    """The layer Conv2DTranspose: the first input is the shape of the result."""
    sizes, value = node.sizes(0), data(node.input(2))
    fixed(node.input(1), "a weight")
    rank = 4 if node.operator == "Conv2DBackpropInput" else 5
    shape = shaped(value)
    if len(shape) != rank or len(sizes) != rank:
        raise NotUnderstood(f"has an input that has not {rank} axes")
    _per_axis(node, "strides", rank)
    _per_axis(node, "dilations", rank)
    apart(value, range(1, rank), "has a window")
    if sizes[0] != shape[0]:
        raise MixesRows("gives the batch axis another size than the number of rows")
    return like(value, sizes)


@TABLE.add("MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D", "MaxPoolV2")
def pool(node: Node) -> Value:
    value = data(node.x)
    shape = shaped(value)
    rank = 5 if node.operator.endswith("3D") else 4
    if len(shape) != rank:
        raise NotUnderstood(f"has an input that has not {rank} axes")
    axes, channel = _spatial(node, rank)
    if node.operator == "MaxPoolV2":
        kernel, strides = node.numbers(1), node.numbers(2)
        if len(kernel) != rank or len(strides) != rank or kernel[0] != 1 or strides[0] != 1:
            raise MixesRows("moves its window over the batch axis")
    else:
        kernel, strides = _per_axis(node, "ksize", rank), _per_axis(node, "strides", rank)
    padding = node.string("padding")
    apart(value, range(1, rank), "has a window")
    new = list(shape)
    for axis in (*axes, channel):
        new[axis] = _windows(node, shape[axis], size_of(kernel[axis]), strides[axis], 1, axis, padding)
    return like(value, new)
