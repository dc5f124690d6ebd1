"""Operators that move elements without computing on them."""

from __future__ import annotations

from inferd.backends.independence import layout
from inferd.backends.independence import operators as rules
from inferd.backends.independence.sizes import (
    ONE,
    MixesRows,
    N,
    NotUnderstood,
    Size,
    product,
    size_of,
)
from inferd.backends.independence.table import OperatorTable
from inferd.backends.independence.values import (
    CONST,
    INDEX,
    ROWS,
    SIZE,
    Value,
    axis_of,
    constant,
    data,
    filled,
    fixed,
    like,
    rows,
    shaped,
)
from inferd.backends.onnx.independence.node import Node, Transfer

TABLE: OperatorTable[Transfer] = OperatorTable()


@TABLE.add("Transpose")
def transpose(node: Node) -> Value:
    order = node.integers("perm")
    return layout.transposed(node.x, list(range(len(shaped(node.x))))[::-1] if order is None else order)


@TABLE.add("Reshape")
def reshape(node: Node) -> Value:
    target = node.sizes_of("shape", 1)
    if target is None:
        raise NotUnderstood("has no target shape")
    zero = bool(node.integer("allowzero", 0))
    return layout.reshaped(node.x, layout.target_shape(node.x, target, zero=zero))


@TABLE.add("Flatten")
def flatten(node: Node) -> Value:
    shape, axis = shaped(node.x), node.integer("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        raise NotUnderstood("has an axis that is out of range")
    axis = axis + len(shape) if axis < 0 else axis
    return layout.reshaped(node.x, [product(shape[:axis]), product(shape[axis:])])


@TABLE.add("Squeeze")
def squeeze(node: Node) -> Value:
    shape = shaped(node.x)
    given = node.numbers_of("axes", 1)
    if given is None:
        if any(size.number is None for size in shape):
            raise MixesRows("drops every axis of size 1, also the batch axis of a single row")
        given = [i for i, size in enumerate(shape) if size == 1]
    return layout.without_axes(node.x, {axis_of(node.x, axis) for axis in given})


@TABLE.add("Unsqueeze")
def unsqueeze(node: Node) -> Value:
    given = node.numbers_of("axes", 1)
    if given is None:
        raise NotUnderstood("has no axes")
    axes = {axis_of(node.x, axis, extra=len(given)) for axis in given}
    if len(axes) != len(given):
        raise NotUnderstood("adds an axis twice")
    return layout.with_axes(node.x, axes)


@TABLE.add("Concat")
def concat(node: Node) -> Value:
    if "axis" not in node.attributes:
        raise NotUnderstood("has no axis")
    return layout.joined(node.given, node.integer("axis", 0))


@TABLE.add("Split")
def split(node: Node) -> list[Value]:
    axis = axis_of(node.x, node.integer("axis", 0))
    size = shaped(node.x)[axis]
    parts = node.sizes_of("split", 1)
    if parts is None:
        count = node.outputs
        if node.integer("num_outputs", count) != count:
            raise NotUnderstood("has another number of outputs than it says")
        if size.number is not None:
            chunk = -(-size.number // count)
            parts = [size_of(max(0, min(chunk, size.number - i * chunk))) for i in range(count)]
        else:
            exact = size.over(size_of(count))
            parts = [node.width(size, count, i, least=0) if exact is None else exact for i in range(count)]
    if len(parts) != node.outputs:
        raise NotUnderstood("has another number of outputs than sizes")
    return [rules.resized(node.x, {axis: part}, "splits") for part in parts]


@TABLE.add("Slice")
def slice_(node: Node) -> Value:
    data(node.x)
    starts, ends = node.sizes_of("starts", 1), node.sizes_of("ends", 2)
    if starts is None or ends is None or len(starts) != len(ends):
        raise NotUnderstood("has no bounds")
    given = node.numbers_of("axes", 3)
    axes = list(range(len(starts))) if given is None else given
    steps = node.sizes(4) or [ONE] * len(starts)
    if (
        len(axes) != len(starts)
        or len(steps) != len(starts)
        or len({axis_of(node.x, axis) for axis in axes}) != len(axes)
    ):
        raise NotUnderstood("has bounds for other axes than it names")
    sizes: dict[int, Size] = {}
    for index, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis = axis_of(node.x, index)
        size = shaped(node.x)[axis]
        last = end.number
        if start == 0 and step == 1 and (end == size or (last is not None and last >= layout.TO_THE_END)):
            continue  # all of it
        if node.x.kind is ROWS and axis == node.x.axis:
            raise MixesRows("takes some rows of the batch")
        if start.batched or end.batched or step.batched:
            raise MixesRows("takes as many elements as there are rows")
        sizes[axis] = layout.slice_length(size, start, end, step)
    return rules.resized(node.x, sizes, "takes a slice") if sizes else node.x


@TABLE.add("Pad")
def pad(node: Node) -> Value:
    rank = len(shaped(data(node.x)))
    pads = node.sizes_of("pads", 1)
    given = node.numbers(3)
    axes = list(range(rank)) if given is None else given
    if pads is None or len(pads) != 2 * len(axes):
        raise NotUnderstood("has padding for other axes than it names")
    fixed(node.optional(2), "the padding")
    sizes: dict[int, Size] = {}
    for i, index in enumerate(axes):
        axis = axis_of(node.x, index)
        if axis in sizes:
            raise NotUnderstood("pads an axis twice")
        if pads[i] != 0 or pads[i + len(axes)] != 0:
            sizes[axis] = shaped(node.x)[axis] + pads[i] + pads[i + len(axes)]
    return rules.resized(node.x, sizes, "pads") if sizes else rules.elementwise([node.x])


@TABLE.add("Expand")
def expand(node: Node) -> Value:
    target = node.sizes(1)
    if target is None:
        raise NotUnderstood("has no target shape")
    return layout.expanded(node.x, target)


@TABLE.add("Tile")
def tile(node: Node) -> Value:
    repeats = node.sizes(1)
    shape = shaped(data(node.x))
    if repeats is None or len(repeats) != len(shape):
        raise NotUnderstood("has another number of repeats than axes")
    if node.x.kind is CONST and any(times.batched for times in repeats):
        if any(times.batched and size != 1 for times, size in zip(repeats, shape, strict=True)):
            raise MixesRows("repeats a constant once for each row")
        return filled([size * times for size, times in zip(shape, repeats, strict=True)])
    sizes = {i: size * times for i, (size, times) in enumerate(zip(shape, repeats, strict=True)) if times != 1}
    return rules.resized(node.x, sizes, "repeats") if sizes else rules.elementwise([node.x])


@TABLE.add("DepthToSpace", "SpaceToDepth")
def depth_to_space(node: Node) -> Value:
    shape, block = shaped(data(node.x)), node.integer("blocksize", 0)
    if len(shape) != 4 or block < 1:
        raise NotUnderstood("moves elements of a tensor that has not four axes")
    deeper = node.operator == "SpaceToDepth"
    many, one = size_of(block * block), size_of(block)
    parts = (
        [shape[1] * many, shape[2].over(one), shape[3].over(one)]
        if deeper
        else [shape[1].over(many), shape[2] * one, shape[3] * one]
    )
    sizes = {i + 1: node.width(shape[i + 1], block) if part is None else part for i, part in enumerate(parts)}
    return rules.resized(node.x, sizes, "moves elements")


@TABLE.add("Resize", "Upsample")
def resize(node: Node) -> Value:
    shape = shaped(data(node.x))
    old = node.operator == "Upsample" or node.opset < 11
    if node.string("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        raise NotUnderstood("resizes a region")
    if node.string("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NotUnderstood("resizes all axes by one scale")
    given = node.integers("axes")
    axes = [axis_of(node.x, axis) for axis in (range(len(shape)) if given is None else given)]
    if len(set(axes)) != len(axes):
        raise NotUnderstood("resizes an axis twice")
    target = None if old else node.sizes(3)
    sizes: dict[int, Size] = {}
    if target:
        if len(target) != len(axes):
            raise NotUnderstood("has sizes for other axes than it names")
        sizes = {axis: size for axis, size in zip(axes, target, strict=True) if shape[axis] != size}
    else:
        for axis, factor in zip(axes, _scales(node, 1 if old else 2, len(axes)), strict=True):
            if factor != 1:
                whole = float(factor).is_integer() and factor >= 1
                sizes[axis] = shape[axis] * int(factor) if whole else node.width(shape[axis], repr(factor))
    if any(size.batched for axis, size in sizes.items() if not (node.x.laid_out and axis == node.x.axis)):
        raise MixesRows("resizes to the number of rows")
    return rules.resized(node.x, sizes, "resizes") if sizes else rules.elementwise([node.x])


def _scales(node: Node, index: int, count: int) -> list[float]:
    given = node.attributes.get("scales")
    if given is None:
        value = node.optional(index)
        fixed(value, "the scale")
        if value is not None and value.known is not None and value.known.dtype.kind == "f":
            given = value.known.reshape(-1).tolist()
    if not isinstance(given, list) or len(given) != count or not all(isinstance(item, float) for item in given):
        raise NotUnderstood("resizes by scales that are not known")
    return given


@TABLE.add("ConstantOfShape")
def constant_of_shape(node: Node) -> Value:
    sizes = node.sizes(0)
    if sizes is None:
        raise NotUnderstood("has no shape")
    return filled(sizes)


@TABLE.add("Range")
def range_(node: Node) -> Value:
    bounds = [node.sizes(i) for i in range(3)]
    flat = [bound[0] for bound in bounds if bound is not None and len(bound) == 1]
    if len(flat) != 3 or any(value.kind not in (CONST, SIZE) for value in node.given):
        raise NotUnderstood("has bounds that are not known")
    start, limit, step = flat
    if start == 0 and limit == N and step == 1:
        return rows([N], 0, kind=INDEX)
    if any(bound.batched for bound in flat):
        raise MixesRows("counts by the number of rows")
    size = limit - start
    exact = step == 1 and (size.least or 0) >= 1
    return constant([size if exact else node.width(start, limit, step, least=0)])


@TABLE.add("OneHot")
def one_hot(node: Node) -> Value:
    fixed(node.input(2), "the values")
    depth = node.sizes(1)
    if depth is None or len(depth) != 1:
        raise NotUnderstood("has a depth that is not known")
    shape = list(shaped(data(node.x)))
    axis = axis_of(node.x, node.integer("axis", -1), extra=1)
    shape.insert(axis, depth[0])
    return like(node.x, shape, node.x.axis + (axis <= node.x.axis))


@TABLE.add("Gather")
def gather(node: Node) -> Value:
    return layout.gathered(node.input(0), node.input(1), node.integer("axis", 0))


@TABLE.add("GatherElements")
def gather_elements(node: Node) -> Value:
    return layout.gathered_elements(node.input(0), node.input(1), node.integer("axis", 0))


@TABLE.add("GatherND")
def gather_nd(node: Node) -> Value:
    return layout.gathered_slices(node.input(0), node.input(1), node.integer("batch_dims", 0))


@TABLE.add("ScatterElements", "Scatter")
def scatter_elements(node: Node) -> Value:
    axis = axis_of(node.x, node.integer("axis", 0))
    values = [data(node.input(i)) for i in range(3)]
    kinds = {value.kind for value in values}
    if kinds == {CONST}:
        return constant(shaped(node.x))
    if kinds == {ROWS} and len({value.layout for value in values}) == 1 and axis != node.x.axis:
        return like(node.x, shaped(node.x))
    raise MixesRows("writes elements across the batch axis")


@TABLE.add("ScatterND")
def scatter_nd(node: Node) -> Value:
    target, index, new = (data(node.input(i)) for i in range(3))
    if target.kind is CONST and index.kind is CONST and new.kind is CONST:
        return constant(shaped(target))
    depth = shaped(index)[-1].number if shaped(index) else None
    rows_only = target.kind is ROWS and new.kind is ROWS and index.kind is CONST
    if rows_only and depth is not None and target.axis >= depth and target.layout == new.layout:
        return like(target, shaped(target))
    raise MixesRows("writes elements across the batch axis")
