"""Matrix products, convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence

from inferd.backends.independence import layout
from inferd.backends.independence import operators as rules
from inferd.backends.independence.sizes import ONE, NotUnderstood, Size, product, size_of
from inferd.backends.independence.table import OperatorTable
from inferd.backends.independence.values import CONST, Cause, Value, by_row, data, fixed, like, mixed, shaped
from inferd.backends.onnx.independence.node import Node, Transfer, microsoft

TABLE: OperatorTable[Transfer] = OperatorTable()


@TABLE.add("MatMul")
def matmul(node: Node) -> Value:
    return rules.matmul(node.input(0), node.input(1))


def _one_element(node: Node, indices: Sequence[int]) -> None:
    """Raises Refusal unless these inputs are left out or are constants of one element."""
    for index in indices:
        value = node.optional(index)
        fixed(value, "a scale or zero point")
        if value is not None and product(shaped(value)) != 1:
            raise NotUnderstood("has a scale or zero point for each row or column")


def _quantised(
    node: Node, left: Sequence[int], right: Sequence[int], result: Sequence[int], a: Value, b: Value
) -> None:
    """Checks the scales and zero points of the operands `a` and `b` and of the result, given by their inputs' numbers.
    A scale for each row of the left operand would be one for each row of the batch."""
    for index in (*left, *right, *result):
        fixed(node.optional(index), "a scale or zero point")
    if data(a).kind is not CONST:
        _one_element(node, [*left, *result])
    if data(b).kind is not CONST:
        _one_element(node, [*right, *result])


@TABLE.add("MatMulInteger", *microsoft("MatMulIntegerToFloat"))
def matmul_integer(node: Node) -> Value:
    a, b = node.input(0), node.input(1)
    if node.operator == "MatMulInteger":
        _quantised(node, [2], [3], [], a, b)
        return rules.matmul(a, b)
    _quantised(node, [2, 4], [3, 5], [], a, b)
    result = rules.matmul(a, b)
    fixed(node.optional(6), "a bias")
    return result if node.optional(6) is None else rules.elementwise([result, node.input(6)])


@TABLE.add("QLinearMatMul")
def qlinear_matmul(node: Node) -> Value:
    a, b = node.input(0), node.input(3)
    _quantised(node, [1, 2], [4, 5], [6, 7], a, b)
    return rules.matmul(a, b)


@TABLE.add("Gemm")
def gemm(node: Node) -> Value:
    return general_product(node, node.input(0), node.input(1), node.optional(2))


def general_product(node: Node, a: Value, b: Value, c: Value | None) -> Value:
    """A B + C of two matrices, transposed as the node's attributes transA and transB say. `c`: None for nothing."""
    a, b = data(a), data(b)
    if len(shaped(a)) != 2 or len(shaped(b)) != 2:
        raise NotUnderstood("multiplies what is no matrix")
    a = layout.transposed(a, [1, 0]) if node.integer("transA", 0) else a
    b = layout.transposed(b, [1, 0]) if node.integer("transB", 0) else b
    result = rules.matmul(a, b)
    if c is None:
        return result
    if len(shaped(c)) > 2:
        raise NotUnderstood("adds what is no matrix")
    return rules.elementwise([result, c])


@TABLE.add(*microsoft("FusedMatMul"))
def fused_matmul(node: Node) -> Value:
    if node.integer("transBatchA", 0) or node.integer("transBatchB", 0):
        raise NotUnderstood("transposes stacks of matrices")

    def turned(value: Value, attribute: str) -> Value:
        rank = len(shaped(data(value)))
        if not node.integer(attribute, 0) or rank < 2:
            return value
        return layout.transposed(value, [*range(rank - 2), rank - 1, rank - 2])

    return rules.matmul(turned(node.input(0), "transA"), turned(node.input(1), "transB"))


@TABLE.add("Einsum")
def einsum(node: Node) -> Value:
    return rules.einsum(node.string("equation", ""), node.given)


def _list(node: Node, name: str, default: list[int], length: int) -> list[int]:
    given = node.integers(name)
    result = default if given is None else given
    if len(result) != length:
        raise NotUnderstood(f"has an attribute {name!r} of another length than its window")
    return result


def _window_sizes(node: Node, value: Value, kernel: Sequence[int]) -> list[Size]:
    rank = len(kernel)
    space = shaped(value)[2:]
    if len(space) != rank:
        raise NotUnderstood("has a window of another rank than its input")
    strides, dilations = _list(node, "strides", [1] * rank, rank), _list(node, "dilations", [1] * rank, rank)
    pads, automatic = _list(node, "pads", [0] * 2 * rank, 2 * rank), node.string("auto_pad", "NOTSET")
    ceil = node.integer("ceil_mode", 0)
    sizes = []
    for i, size in enumerate(space):
        if automatic.startswith("SAME"):
            span = size - 1
        else:
            padding = 0 if automatic == "VALID" else pads[i] + pads[i + rank]
            span = size + padding - dilations[i] * (kernel[i] - 1) - 1
        steps = span.over(size_of(strides[i]))
        if steps is None and span.number is not None and strides[i] > 0 and not ceil:
            steps = size_of(span.number // strides[i])
        whole = (size, strides[i], dilations[i], kernel[i], ceil, str(pads), automatic)
        # With ceil_mode the last window may be dropped: only a stride of 1 is exact.
        exact = steps is not None and (not ceil or strides[i] == 1)
        sizes.append(steps + 1 if exact and steps is not None else node.width(*whole))
    return sizes


def _convolved(node: Node, value: Value, weight: Value, others: Sequence[Value | None]) -> Value:
    shape = shaped(weight)
    kernel = [size.number for size in shape[2:]]
    if len(shape) < 3 or any(size is None for size in kernel):
        raise NotUnderstood("has a kernel of unknown size")
    sizes = _window_sizes(node, value, [size for size in kernel if size is not None])
    return rules.windowed(value, [weight, *others], sizes, shape[0])


@TABLE.add("Conv", "ConvInteger")
def conv(node: Node) -> Value:
    return _convolved(node, node.input(0), node.input(1), [node.optional(2), node.optional(3)])


@TABLE.add(*microsoft("FusedConv"))
def fused_conv(node: Node) -> Value:
    if node.optional(3) is not None:
        raise NotUnderstood("adds a fourth input")
    return _convolved(node, node.input(0), node.input(1), [node.optional(2)])


@TABLE.add("QLinearConv")
def qlinear_conv(node: Node) -> Value:
    return _convolved(node, node.input(0), node.input(3), [node.optional(i) for i in (1, 2, 4, 5, 6, 7, 8)])


@TABLE.add("ConvTranspose")
def conv_transpose(node: Node) -> Value:
    weight = shaped(node.input(1))
    rank = len(weight) - 2
    space = shaped(node.x)[2:]
    if rank < 1 or len(space) != rank:
        raise NotUnderstood("has a kernel of another rank than its input")
    strides, dilations = _list(node, "strides", [1] * rank, rank), _list(node, "dilations", [1] * rank, rank)
    extra, pads = _list(node, "output_padding", [0] * rank, rank), _list(node, "pads", [0] * 2 * rank, 2 * rank)
    automatic, given = node.string("auto_pad", "NOTSET"), node.integers("output_shape")
    sizes = []
    for i, size in enumerate(space):
        if given is not None or automatic != "NOTSET":
            sizes.append(node.width(size, weight[i + 2], strides[i], dilations[i], i, str(given), automatic, str(pads)))
            continue
        span = (size - 1) * strides[i] + extra[i] + (weight[i + 2] - 1) * dilations[i] + 1
        sizes.append(span - pads[i] - pads[i + rank])
    return rules.windowed(node.x, [node.input(1), node.optional(2)], sizes, weight[1] * node.integer("group", 1))


@TABLE.add("MaxPool", "AveragePool", "LpPool")
def pool(node: Node) -> list[Value]:
    kernel = node.integers("kernel_shape")
    if not kernel:
        raise NotUnderstood("has no kernel")
    result = rules.windowed(node.x, [], _window_sizes(node, node.x, kernel), shaped(node.x)[1])
    cause = Cause(node.operator, node.proto.shown, "numbers the elements of the whole batch", understood=True)
    return [result, mixed(cause, result.shape)][: node.outputs]


@TABLE.add("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(node: Node) -> Value:
    shape = shaped(node.x)
    if len(shape) < 3:
        raise NotUnderstood("pools a tensor of fewer than three axes")
    return rules.windowed(node.x, [], [ONE] * (len(shape) - 2), shape[1])


@TABLE.add("GridSample")
def grid_sample(node: Node) -> Value:
    value, grid = by_row(node.input(0), "the input"), by_row(node.input(1), "the grid")
    shape, places = shaped(value), shaped(grid)
    if len(shape) < 4 or len(shape) != len(places):
        raise NotUnderstood("samples a tensor of another rank than its grid")
    return like(value, [shape[0], shape[1], *places[1:-1]])
