"""Operators that move elements, or make tensors, without computing on elements."""

from __future__ import annotations

from inferd.backends.independence import grids, layout, slices
from inferd.backends.independence import operators as rules
from inferd.backends.independence.elements import sizes_of
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
from inferd.backends.litert.independence.node import Node, new_table

TABLE = new_table()
_MASKS = ("begin", "end", "ellipsis", "new_axis", "shrink_axis")


def target_of(node: Node) -> list[Size]:
    """The shape that a RESHAPE is to give: its second input, else its setting."""
    if node.optional(1) is not None:
        return node.sizes(1)
    return [size_of(size) for size in node.integers("new_shape")]


def steps_of(node: Node, rank: int) -> list[slices.Step]:
    """What a STRIDED_SLICE does to each axis of a tensor of `rank` axes."""
    if node.integer("offset"):
        raise NotUnderstood("has ends that are counted from the beginning")
    masks = {name: node.integer(f"{name}_mask") for name in _MASKS}
    if len(shaped(node.input(1))) != 1:
        raise NotUnderstood("has bounds that are no vector")
    return slices.sliced_axes(node.sizes(1), node.sizes(2), node.sizes(3), masks, rank)


@TABLE.add("RESHAPE")
def reshape(node: Node) -> Value:
    return layout.reshaped(node.x, layout.target_shape(node.x, target_of(node), zero=True))


@TABLE.add("TRANSPOSE")
def transpose(node: Node) -> Value:
    return layout.transposed(node.x, [axis_of(node.x, axis) for axis in node.numbers(1)])


@TABLE.add("SQUEEZE")
def squeeze(node: Node) -> Value:
    shape, given = shaped(node.x), node.integers("squeeze_dims")
    if not given:
        if any(size.number is None for size in shape):
            raise MixesRows("drops every axis of size 1, also the batch axis of a single row")
        given = [i for i, size in enumerate(shape) if size == 1]
    return layout.without_axes(node.x, {axis_of(node.x, axis) for axis in given})


@TABLE.add("EXPAND_DIMS")
def expand_dims(node: Node) -> Value:
    return layout.with_axes(node.x, {axis_of(node.x, node.number(1), extra=1)})


@TABLE.add("CONCATENATION")
def concatenation(node: Node) -> Value:
    return layout.joined(node.given, node.integer("axis"))


@TABLE.add("PACK")
def pack(node: Node) -> Value:
    axis = axis_of(node.x, node.integer("axis"), extra=1)
    return layout.joined([layout.with_axes(value, {axis}) for value in node.given], axis)


@TABLE.add("UNPACK")
def unpack(node: Node) -> list[Value]:
    value = data(node.x)
    axis = axis_of(value, node.integer("axis"))
    apart(value, [axis], "takes single places")
    shape = [size for i, size in enumerate(shaped(value)) if i != axis]
    return [like(value, shape, value.axis - (axis < value.axis) if value.laid_out else None)] * node.outputs


@TABLE.add("SPLIT")
def split(node: Node) -> list[Value]:
    value, axis = node.input(1), axis_of(node.input(1), node.number(0))
    size, count = shaped(value)[axis], node.outputs
    part = size.over(size_of(count))
    part = node.width(size, count) if part is None else part
    return [rules.resized(value, {axis: part}, "splits")] * count


@TABLE.add("SPLIT_V")
def split_v(node: Node) -> list[Value]:
    parts, axis = node.sizes(1), axis_of(node.x, node.number(2))
    if len(parts) != node.outputs:
        raise NotUnderstood("has another number of outputs than sizes")
    open_at = [i for i, part in enumerate(parts) if part == -1]
    given = [part for part in parts if part != -1]
    if len(open_at) > 1 or any(part.least is None or part.least < 0 for part in given):
        raise NotUnderstood("splits into parts that are not known")
    for i in open_at:
        parts[i] = shaped(node.x)[axis] - sum(given, size_of(0))
    return [rules.resized(node.x, {axis: part}, "splits") for part in parts]


@TABLE.add("STRIDED_SLICE")
def strided_slice(node: Node) -> Value:
    return slices.strided_slice(node.x, steps_of(node, len(shaped(node.x))))


@TABLE.add("SLICE")
def slice_(node: Node) -> Value:
    shape, begins, counts = shaped(data(node.x)), node.sizes(1), node.sizes(2)
    if len(begins) != len(shape) or len(counts) != len(shape):
        raise NotUnderstood("has bounds for other axes than there are")
    sizes: dict[int, Size] = {}
    for axis, (size, begin, count) in enumerate(zip(shape, begins, counts, strict=True)):
        if begin == 0 and count in (size, -1):
            continue
        if node.x.kind is ROWS and axis == node.x.axis:
            raise MixesRows("takes some rows of the batch")
        if begin.batched or count.batched:
            raise MixesRows("takes as many elements as there are rows")
        if count.number is not None and count.number < 0:
            sizes[axis] = layout.slice_length(size, begin, size_of(layout.TO_THE_END), ONE)
        else:
            sizes[axis] = count
    return rules.resized(node.x, sizes, "takes a slice") if sizes else node.x


@TABLE.add("GATHER")
def gather(node: Node) -> Value:
    return layout.gathered_by_batch(node.input(0), node.input(1), node.integer("axis"), node.integer("batch_dims"))


@TABLE.add("GATHER_ND")
def gather_nd(node: Node) -> Value:
    return layout.gathered_slices(node.input(0), node.input(1), 0)


@TABLE.add("SCATTER_ND")
def scatter_nd(node: Node) -> Value:
    return layout.scattered_slices(data(node.input(0)), data(node.input(1)), node.sizes(2))


@TABLE.add("DYNAMIC_UPDATE_SLICE")
def dynamic_update_slice(node: Node) -> Value:
    """Writes `new` into `target`, at a place that is moved back so that it fits. As many rows as there are leave no
    other place along their axis."""
    target, new, begin = (data(node.input(i)) for i in range(3))
    fixed(begin, "a place")
    if target.kind is CONST and new.kind is CONST:
        return constant(shaped(target))
    if target.kind is ROWS and new.kind is ROWS and target.layout == new.layout and target.axis == new.axis:
        return like(target, shaped(target))
    raise MixesRows("writes elements across the batch axis")


@TABLE.add("PAD", "PADV2", "MIRROR_PAD")
def pad(node: Node) -> Value:
    pads = node.matrix(1)
    shape = shaped(data(node.x))
    if len(pads) != len(shape) or any(len(pair) != 2 for pair in pads):
        raise NotUnderstood("has padding for other axes than there are")
    if node.operator == "PADV2":
        fixed(node.input(2), "the padding")
    sizes = {i: shape[i] + a + b for i, (a, b) in enumerate(pads) if a != 0 or b != 0}
    return rules.resized(node.x, sizes, "pads") if sizes else rules.elementwise([node.x])


@TABLE.add("TILE")
def tile(node: Node) -> Value:
    repeats, shape = node.sizes(1), shaped(data(node.x))
    if len(repeats) != len(shape):
        raise NotUnderstood("has another number of repeats than axes")
    if node.x.kind is CONST and any(times.batched for times in repeats):
        if any(times.batched and size != 1 for times, size in zip(repeats, shape, strict=True)):
            raise MixesRows("repeats a constant once for each row")
        return filled([size * times for size, times in zip(shape, repeats, strict=True)])
    sizes = {i: size * times for i, (size, times) in enumerate(zip(shape, repeats, strict=True)) if times != 1}
    return rules.resized(node.x, sizes, "repeats") if sizes else rules.elementwise([node.x])


@TABLE.add("BROADCAST_TO")
def broadcast_to(node: Node) -> Value:
    return layout.expanded(node.x, node.sizes(1))


@TABLE.add("FILL")
def fill(node: Node) -> Value:
    fixed(node.input(1), "what it fills with")
    return filled(node.sizes(0))


@TABLE.add("RANGE")
def range_(node: Node) -> Value:
    bounds = [sizes_of(node.input(i)) for i in range(3)]
    if any(len(bound) != 1 for bound in bounds) or any(value.kind not in (CONST, SIZE) for value in node.given):
        raise NotUnderstood("has bounds that are not known")
    start, limit, step = (bound[0] for bound in bounds)
    if start == 0 and limit == N and step == 1:
        return rows([N], 0, kind=INDEX)
    if any(bound.batched for bound in (start, limit, step)):
        raise MixesRows("counts by the number of rows")
    size = limit - start
    exact = step == 1 and (size.least or 0) >= 1
    return constant([size if exact else node.width(start, limit, step, least=0)])


@TABLE.add("ONE_HOT")
def one_hot(node: Node) -> Value:
    for index in (2, 3):
        fixed(node.input(index), "a value")
    depth = node.sizes(1)
    if len(depth) != 1:
        raise NotUnderstood("has a depth that is not known")
    shape = list(shaped(data(node.x)))
    axis = axis_of(node.x, node.integer("axis"), extra=1)
    shape.insert(axis, depth[0])
    return like(node.x, shape, node.x.axis + (axis <= node.x.axis) if node.x.laid_out else None)


@TABLE.add("SPACE_TO_DEPTH", "DEPTH_TO_SPACE")
def moved(node: Node) -> Value:
    shape, block = shaped(data(node.x)), node.integer("block_size")
    if len(shape) != 4 or block < 1:
        raise NotUnderstood("moves elements of a tensor that has not four axes")
    many, one = size_of(block * block), size_of(block)
    parts = (
        [shape[1].over(one), shape[2].over(one), shape[3] * many]
        if node.operator == "SPACE_TO_DEPTH"
        else [shape[1] * one, shape[2] * one, shape[3].over(many)]
    )
    sizes = {i + 1: node.width(shape[i + 1], block) if part is None else part for i, part in enumerate(parts)}
    return rules.resized(node.x, sizes, "moves elements")


def _pairs(node: Node) -> list[Size]:
    return [size for pair in node.matrix(2) for size in pair]


@TABLE.add("SPACE_TO_BATCH_ND")
def space_to_batch(node: Node) -> Value:
    return grids.space_to_batch(node.x, node.numbers(1), _pairs(node))


@TABLE.add("BATCH_TO_SPACE_ND")
def batch_to_space(node: Node) -> Value:
    return grids.batch_to_space(node.x, node.numbers(1), _pairs(node))
