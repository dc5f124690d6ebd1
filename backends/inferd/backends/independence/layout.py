"""What operators do to the layout of values: transpose, reshape, broadcast, concatenate, gather."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import reduce

from inferd.backends.independence.operators import broadcast
from inferd.backends.independence.sizes import (
    ONE,
    MixesRows,
    N,
    NotUnderstood,
    Size,
    computed,
    product,
    size_of,
    smaller,
)
from inferd.backends.independence.values import (
    CONST,
    INDEX,
    PICK,
    ROWS,
    SIZE,
    Value,
    axis_of,
    constant,
    data,
    filled,
    like,
    rows,
    shaped,
)

TO_THE_END = 10**9  # a slice's end that means "all of it" (tf2onnx writes this number): no axis is that long


def transposed(value: Value, order: Sequence[int]) -> Value:
    """The axes in another order. A row number stays a row number; the components of a PICK must stay last."""
    shape = shaped(value)
    if sorted(order) != list(range(len(shape))):
        raise NotUnderstood("has an order of axes that is none")
    if value.kind is PICK and order[-1] != len(shape) - 1:
        data(value)
    return like(value, [shape[i] for i in order], list(order).index(value.axis) if value.laid_out else 0)


def reshaped(value: Value, shape: Sequence[Size]) -> Value:
    """Another shape for the same elements in the same order.

    Rows stay together if the number of elements before them is a whole multiple of the new dimensions before them. The
    elements after them need no check: a reshape that does not fail keeps the number of all elements.
    """
    if value.kind is CONST:
        return constant(shape)
    old = shaped(value)
    if not value.laid_out or (value.kind is PICK and (not shape or shape[-1] != old[-1])):
        data(value)
    before = product(old[: value.axis]) * value.outer
    for axis, size in enumerate(shape):
        if size.batched:
            outer = before.over(product(shape[:axis]))
            inner = size.over(outer * N) if outer is not None else None
            if outer is None or inner is None:
                break
            return rows(shape, axis, outer, inner, value.kind)
    raise MixesRows(f"reshapes {list(old)} to {list(shape)}: this does not keep rows together")


def target_shape(value: Value, target: Sequence[Size], *, zero: bool = False) -> list[Size]:
    """The target of a reshape with its 0 (the size as before, unless `zero`) and its -1 (the rest) filled in."""
    shape, sizes, rest_at = shaped(value), list(target), None
    for i, size in enumerate(sizes):
        if size == 0 and not zero:
            if i >= len(shape):
                raise NotUnderstood("copies a dimension that is not there")
            sizes[i] = shape[i]
        elif size == -1:
            if rest_at is not None:
                raise NotUnderstood("leaves two dimensions open")
            rest_at = i
        elif (size.least is None or size.least < (0 if zero else 1)) and not (i < len(shape) and size == shape[i]):
            # A size that may be negative, or 0 where that is no size, would mean something else. The dimension as it is
            # stays what it is.
            raise NotUnderstood("reshapes to a dimension that is not known")
    if rest_at is not None:
        total, others = product(shape), product([size for i, size in enumerate(sizes) if i != rest_at])
        rest = total.over(others)
        if rest is None:
            if total.batched or others.batched:
                raise MixesRows(f"divides {total} elements into parts of {others}")
            rest = computed("rest", total, others)
        sizes[rest_at] = rest
    return sizes


def without_axes(value: Value, axes: Collection[int]) -> Value:
    """Drops axes of size 1, counted from the first one. Raises MixesRows where one of them is the batch axis."""
    if value.laid_out and value.axis in axes:
        raise MixesRows("drops the batch axis")
    if value.kind not in (CONST, INDEX):
        data(value)
    kept = [size for i, size in enumerate(shaped(value)) if i not in axes]
    return like(value, kept, value.axis - sum(axis < value.axis for axis in axes) if value.laid_out else None)


def with_axes(value: Value, axes: Collection[int]) -> Value:
    """Adds axes of size 1, at these places of the result, counted from its first axis."""
    if value.kind in (PICK, SIZE):
        data(value)
    shape = [ONE] * (len(shaped(value)) + len(axes))
    places = [i for i in range(len(shape)) if i not in axes]
    for place, size in zip(places, shaped(value), strict=True):
        shape[place] = size
    return like(value, shape, places[value.axis] if value.laid_out else None)


def expanded(value: Value, shape: Sequence[Size]) -> Value:
    """Broadcast to a shape that may have N where `value` has one element: all rows get the same."""
    full = broadcast([shaped(value), shape])
    missing = len(full) - len(shaped(value))
    if value.kind is CONST:
        for i, size in enumerate(full):
            if size.batched and i >= missing and shaped(value)[i - missing] != 1:
                raise MixesRows("has a constant with several elements along the batch axis")
        return filled(full)
    if not value.laid_out:
        data(value)
    axis = value.axis + missing
    size = shaped(value)[value.axis]
    in_shape = axis - (len(full) - len(shape))
    if full[axis] != size or (in_shape >= 0 and shape[in_shape] not in (ONE, size)):
        raise MixesRows("has a fixed size along the batch axis")
    if value.kind is PICK and full[-1] != shaped(value)[-1]:
        data(value)
    return like(value, full, axis)


def joined(values: Sequence[Value], axis: int) -> Value:
    """Concatenation along an axis that is not that of the rows. All operands must have the rows."""
    shapes = [shaped(value) for value in values]
    axis = axis_of(values[0], axis)
    if any(len(shape) != len(shapes[0]) for shape in shapes):
        raise NotUnderstood("concatenates tensors of different rank")
    total = reduce(Size.__add__, [shape[axis] for shape in shapes])
    shape = [total if i == axis else reduce(_equal, [other[i] for other in shapes]) for i in range(len(shapes[0]))]
    first = next((value for value in values if value.laid_out), None)
    if first is None:
        for value in values:
            data(value)
        return constant(shape)
    # A column of row numbers, then columns of data: the index of a gather.
    numbered = first is values[0] and first.kind in (INDEX, PICK) and axis == len(shape) - 1 != first.axis
    numbered = numbered and (first.kind is PICK or shaped(first)[-1] == 1)
    for position, value in enumerate(values):
        if not (numbered and position == 0):
            data(value)
        if value.kind is CONST:
            raise MixesRows("concatenates a constant with rows")
        if value.layout != first.layout:
            raise MixesRows("has the rows on different axes of two operands")
    if axis == first.axis:
        raise MixesRows("concatenates along the batch axis")
    return rows(shape, first.axis, first.outer, first.inner, PICK if numbered else ROWS)


def _equal(a: Size, b: Size) -> Size:
    """The size of dimensions that must be equal: the number, if one of them is known."""
    return a if a == b or b.number is None else b


def gathered(value: Value, index: Value, axis: int) -> Value:
    """value[..., index, ...]: `index` is applied to one axis."""
    axis = axis_of(value, axis)
    shape, where = shaped(value), shaped(index)
    result = [*shape[:axis], *where, *shape[axis + 1 :]]
    own = index.kind is INDEX and len(where) == 1 and index.plain
    if own and value.kind is ROWS and axis == value.axis and value.plain:
        return like(value, result)
    data(index)
    if data(value).kind is CONST:
        return like(index, result, axis + index.axis)
    if index.kind is ROWS:
        raise MixesRows("picks from all rows by a row's own data")
    if axis == value.axis:
        raise MixesRows("picks rows of the batch by constant numbers")
    return like(value, result, value.axis if value.axis < axis else value.axis - 1 + len(where))


def gathered_by_batch(value: Value, index: Value, axis: int, batch: int) -> Value:
    """value[b..., :, i, ...]: the first `batch` axes of both are the same."""
    if batch == 0:
        return gathered(value, index, axis)
    value, index = data(value), data(index)
    shape, where = shaped(value), shaped(index)
    batch = batch + len(where) if batch < 0 else batch
    axis = axis_of(value, axis)
    if not 0 <= batch <= min(axis, len(where)):
        raise NotUnderstood("picks by batches in a way that is not understood")
    result = [*shape[:axis], *where[batch:], *shape[axis + 1 :]]
    if value.kind is CONST and index.kind is CONST:
        return constant(result)
    if value.kind is ROWS and index.kind is ROWS:
        if value.axis == index.axis < batch and value.layout[1:] == index.layout[1:]:
            return like(value, result)
        raise MixesRows("picks elements across the batch axis")
    if index.kind is ROWS:
        if index.axis < batch:
            raise MixesRows("has a constant with as many elements as there are rows")
        return like(index, result, axis + index.axis - batch)
    if value.axis < batch:
        raise MixesRows("has a constant with as many elements as there are rows")
    if value.axis == axis:
        raise MixesRows("picks rows of the batch by constant numbers")
    return like(value, result, value.axis if value.axis < axis else value.axis - 1 + len(where) - batch)


def gathered_elements(value: Value, index: Value, axis: int) -> Value:
    """For each element of `index`, the element at that place along `axis`, and at the same place along the others."""
    axis = axis_of(value, axis)
    if len(shaped(index)) != len(shaped(value)):
        raise NotUnderstood("picks elements by an index of another rank")
    if data(index).kind is ROWS and data(value).kind is CONST and axis == index.axis:
        return like(index, shaped(index))
    if index.kind is not data(value).kind or (
        value.kind is ROWS and (value.layout != index.layout or axis == value.axis)
    ):
        raise MixesRows("picks elements across the batch axis")
    return like(index, shaped(index))


def gathered_slices(value: Value, index: Value, batch: int) -> Value:
    """GatherND: the last axis of `index` holds coordinates along the axes of `value` behind the first `batch` ones."""
    shape, where = shaped(value), shaped(index)
    depth = where[-1].number if where else None
    if depth is None or depth < 1 or not 0 <= batch < len(where) or batch + depth > len(shape):
        raise NotUnderstood("has an index of unknown length")
    last = len(where) - 1
    result = [*where[:-1], *shape[batch + depth :]]
    if index.kind is PICK or (index.kind is INDEX and depth == 1):
        by_number = value.kind is ROWS and value.axis == 0 and value.plain and index.plain
        if batch or not by_number or index.axis >= last:
            raise MixesRows("picks elements across the batch axis")
        return like(replace(index, kind=ROWS), result)
    data(index)
    if data(value).kind is CONST and (index.kind is CONST or index.axis < last):
        if index.kind is ROWS and index.axis < batch:
            raise MixesRows("has a constant with as many elements as there are rows")
        return like(index, result)
    same = value.axis == index.axis and value.layout[1:] == index.layout[1:]
    if value.kind is ROWS and index.kind is ROWS and value.axis < batch and same:
        return like(value, result)
    if value.kind is ROWS and index.kind is CONST and value.axis >= batch + depth:
        return like(value, result, last + value.axis - batch - depth)
    raise MixesRows("picks elements across the batch axis")


def scattered_slices(index: Value, new: Value, sizes: Sequence[Size]) -> Value:
    """ScatterNd: zeros with these sizes, and `new` at the coordinates that the last axis of `index` holds."""
    where = shaped(index)
    depth = where[-1].number if where else None
    if index.kind is CONST and new.kind is CONST:
        return constant(sizes)
    if index.kind is CONST and new.kind is ROWS and depth is not None:
        axis = new.layout[0] + len(sizes)
        if axis >= depth and new.axis >= len(where) - 1:
            return like(new, sizes, axis)
    raise MixesRows("writes elements across the batch axis")


def slice_length(size: Size, start: Size, end: Size, step: Size) -> Size:
    """The number of elements that a slice takes."""
    numbers = size.number, start.number, end.number, step.number
    if numbers[0] is not None and numbers[1] is not None and numbers[2] is not None and numbers[3] is not None:
        if numbers[3] > 0:
            return size_of(len(range(numbers[0])[slice(*numbers[1:])]))
    elif step == 1:
        first, last = start.number, end.number
        found = None
        if first is not None and first >= 0 and (end == size or (last is not None and last >= TO_THE_END)):
            found = size - first
        elif first == 0 and last is not None and last < 0:
            found = size + last
        elif first == 0 and (end.least or 0) >= 1:
            found = smaller(size, end)
        if found is not None and (found.least or 0) >= 1:
            return found
    return computed("slice", size, start, end, step, least=0)
