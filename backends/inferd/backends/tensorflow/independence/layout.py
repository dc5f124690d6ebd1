"""Operators that move elements without computing on them."""

from __future__ import annotations

from inferd.backends.independence import grids, layout, slices
from inferd.backends.independence import operators as rules
from inferd.backends.independence.sizes import ONE, MixesRows, N, NotUnderstood, Size, size_of
from inferd.backends.independence.values import (
    CONST,
    INDEX,
    ROWS,
    SIZE,
    Value,
    apart,
    axis_of,
    constant,
    data,
    filled,
    fixed,
    like,
    rows,
    shaped,
)
from inferd.backends.tensorflow.independence.bounds import sliced_axes
from inferd.backends.tensorflow.independence.node import WHOLE, Node, new_table

TABLE = new_table()


@TABLE.add("Transpose", "ConjugateTranspose")
def transpose(node: Node) -> Value:
    return layout.transposed(node.x, node.numbers(1))


@TABLE.add("Reshape")
def reshape(node: Node) -> Value:
    return layout.reshaped(node.x, layout.target_shape(node.x, node.sizes(1), zero=True))


@TABLE.add("Squeeze")
def squeeze(node: Node) -> Value:
    axes = node.integers("squeeze_dims")
    if not axes:
        shape = shaped(node.x)
        if any(size.number is None for size in shape):
            raise MixesRows("drops every axis of size 1, also the batch axis of a single row")
        axes = [i for i, size in enumerate(shape) if size == 1]
    return layout.without_axes(node.x, {axis_of(node.x, axis) for axis in axes})


@TABLE.add("ExpandDims")
def expand_dims(node: Node) -> Value:
    return layout.with_axes(node.x, {axis_of(node.x, node.number(1), extra=1)})


@TABLE.add("ConcatV2")
def concat(node: Node) -> Value:
    return layout.joined(node.given[:-1], node.number(-1))


@TABLE.add("Concat")
def old_concat(node: Node) -> Value:
    return layout.joined(node.given[1:], node.number(0))


@TABLE.add("Pack")
def pack(node: Node) -> Value:
    axis = node.integer("axis")
    place = axis_of(node.x, axis, extra=1)
    return layout.joined([layout.with_axes(value, {axis_of(value, axis, extra=1)}) for value in node.given], place)


@TABLE.add("Unpack")
def unpack(node: Node) -> list[Value]:
    axis = axis_of(node.x, node.integer("axis"))
    apart(node.x, [axis], "takes apart the rows")
    part = rules.resized(node.x, {axis: ONE}, "takes apart the rows")
    return [layout.without_axes(part, {axis_of(part, axis)})] * node.outputs


@TABLE.add("Split")
def split(node: Node) -> list[Value]:
    value, count = node.input(1), node.outputs
    axis = axis_of(value, node.number(0))
    size = shaped(value)[axis]
    part = size.over(size_of(count))
    if part is None:
        if size.number is not None:
            raise NotUnderstood("splits into parts of different size")
        part = node.width(size, count)
    return [rules.resized(value, {axis: part}, "splits")] * count


@TABLE.add("SplitV")
def split_by_sizes(node: Node) -> list[Value]:
    axis, parts = axis_of(node.x, node.number(2)), node.sizes(1)
    if len(parts) != node.outputs:
        raise NotUnderstood("has another number of outputs than sizes")
    total, open_at = shaped(node.x)[axis], [i for i, part in enumerate(parts) if part == -1]
    if len(open_at) > 1:
        raise NotUnderstood("leaves two sizes open")
    given = [part for part in parts if part != -1]
    if any(part.least is None or part.least < 0 for part in given):
        raise NotUnderstood("splits into parts that are not known")
    for i in open_at:
        parts[i] = total - sum(given, size_of(0))
    return [rules.resized(node.x, {axis: part}, "splits") for part in parts]


@TABLE.add("StridedSlice")
def strided_slice(node: Node) -> Value:
    return slices.strided_slice(node.x, sliced_axes(node, len(shaped(node.x))))


@TABLE.add("Slice")
def slice_(node: Node) -> Value:
    value = data(node.x)
    shape, starts, counts = shaped(value), node.sizes(1), node.sizes(2)
    if len(starts) != len(shape) or len(counts) != len(shape):
        raise NotUnderstood("has bounds for other axes than there are")
    sizes: dict[int, Size] = {}
    for axis, (size, start, count) in enumerate(zip(shape, starts, counts, strict=True)):
        if start == 0 and count in (size, -1):
            continue  # all of it
        if value.kind is ROWS and axis == value.axis:
            raise MixesRows("takes some rows of the batch")
        if start.batched or count.batched:
            raise MixesRows("takes as many elements as there are rows")
        if count.number is not None and count.number >= 0:
            sizes[axis] = count
        elif count == -1 and start.number is not None:
            sizes[axis] = layout.slice_length(size, start, size_of(layout.TO_THE_END), ONE)
        elif count.least is not None and count.least >= 0:
            sizes[axis] = count
        else:
            sizes[axis] = node.width(size, start, count, least=0)
    return rules.resized(value, sizes, "takes a slice") if sizes else value


@TABLE.add("Pad", "PadV2", "MirrorPad")
def pad(node: Node) -> Value:
    shape = shaped(data(node.x))
    pads = node.sizes(1)
    if len(pads) != 2 * len(shape):
        raise NotUnderstood("has padding for other axes than there are")
    if node.operator == "PadV2":
        fixed(node.input(2), "the padding")
    sizes: dict[int, Size] = {}
    for axis, size in enumerate(shape):
        before, after = pads[2 * axis], pads[2 * axis + 1]
        if before != 0 or after != 0:
            sizes[axis] = size + before + after
    return rules.resized(node.x, sizes, "pads") if sizes else rules.elementwise([node.x])


@TABLE.add("Tile")
def tile(node: Node) -> Value:
    repeats = node.sizes(1)
    shape = shaped(data(node.x))
    if len(repeats) != len(shape):
        raise NotUnderstood("has another number of repeats than axes")
    if node.x.kind is CONST and any(times.batched for times in repeats):
        if any(times.batched and size != 1 for times, size in zip(repeats, shape, strict=True)):
            raise MixesRows("repeats a constant once for each row")
        return filled([size * times for size, times in zip(shape, repeats, strict=True)])
    sizes = {i: size * times for i, (size, times) in enumerate(zip(shape, repeats, strict=True)) if times != 1}
    return rules.resized(node.x, sizes, "repeats") if sizes else rules.elementwise([node.x])


@TABLE.add("BroadcastTo")
def broadcast_to(node: Node) -> Value:
    target = node.sizes(1)
    result = layout.expanded(node.x, target)
    shape = shaped(result)
    if result.kind is ROWS and (len(target) != len(shape) or target[result.axis] != shape[result.axis]):
        raise NotUnderstood("broadcasts to fewer elements")
    return result


@TABLE.add("Fill")
def fill(node: Node) -> Value:
    fixed(node.input(1), "a value")
    return filled(node.sizes(0))


@TABLE.add("Range")
def range_(node: Node) -> Value:
    start, limit, step = (node.size(i) for i in range(3))
    if any(value.kind not in (CONST, SIZE) for value in node.given):
        raise NotUnderstood("has bounds that are not known")
    if start == 0 and limit == N and step == 1:
        if node.data_type("Tidx") not in WHOLE:
            raise MixesRows("uses the position of a row in the batch as data")
        return rows([N], 0, kind=INDEX)
    if any(bound.batched for bound in (start, limit, step)):
        raise MixesRows("counts by the number of rows")
    size = limit - start
    exact = step == 1 and (size.least or 0) >= 1
    return constant([size if exact else node.width(start, limit, step, least=0)])


@TABLE.add("LinSpace")
def linear_space(node: Node) -> Value:
    for index in (0, 1):
        fixed(node.input(index), "a bound")
    count = node.size(2)
    if count.batched:
        raise MixesRows("makes as many elements as there are rows")
    return constant([count])


@TABLE.add("OneHot")
def one_hot(node: Node) -> Value:
    for index in (2, 3):
        fixed(node.input(index), "the values")
    shape = list(shaped(data(node.x)))
    depth, axis = node.size(1), node.integer("axis")
    if depth.batched:
        raise MixesRows("makes as many elements as there are rows")
    place = axis_of(node.x, axis, extra=1)
    shape.insert(place, depth)
    return like(node.x, shape, node.x.axis + (place <= node.x.axis))


def _moved(node: Node, deeper: bool) -> Value:
    """Elements of an image that move between space and channels."""
    shape, block = shaped(data(node.x)), node.integer("block_size")
    kind = node.string("data_format")
    if len(shape) != 4 or block < 1 or kind not in ("NHWC", "NCHW"):
        raise NotUnderstood("moves elements of a tensor that has not four axes")
    channel, space = (3, (1, 2)) if kind == "NHWC" else (1, (2, 3))
    many, one = size_of(block * block), size_of(block)
    sizes = {channel: shape[channel] * many if deeper else shape[channel].over(many)}
    sizes |= {axis: shape[axis].over(one) if deeper else shape[axis] * one for axis in space}
    known = {axis: node.width(shape[axis], block) if size is None else size for axis, size in sizes.items()}
    return rules.resized(node.x, known, "moves elements")


@TABLE.add("SpaceToDepth")
def space_to_depth(node: Node) -> Value:
    return _moved(node, deeper=True)


@TABLE.add("DepthToSpace")
def depth_to_space(node: Node) -> Value:
    return _moved(node, deeper=False)


@TABLE.add("SpaceToBatchND")
def space_to_batch(node: Node) -> Value:
    return grids.space_to_batch(node.x, node.numbers(1), node.sizes(2))


@TABLE.add("BatchToSpaceND")
def batch_to_space(node: Node) -> Value:
    return grids.batch_to_space(node.x, node.numbers(1), node.sizes(2))
