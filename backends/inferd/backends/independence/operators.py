"""What operators do to the elements of values. Where rows would meet, the functions raise MixesRows.

Shapes are right whenever the model does not fail: a model that fails mixes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce

from inferd.backends.independence.sizes import ONE, MixesRows, NotUnderstood, Size, met
from inferd.backends.independence.values import (
    CONST,
    ROWS,
    Shape,
    Value,
    apart,
    axis_of,
    constant,
    data,
    fixed,
    like,
    rows,
    shaped,
)


def broadcast(shapes: Sequence[Sequence[Size]]) -> Shape:
    """The shape to which the shapes are broadcast, aligned at the last axis."""
    if not shapes:
        raise NotUnderstood("has no operand")
    rank = max(map(len, shapes))
    padded = [(ONE,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(reduce(met, column) for column in zip(*padded, strict=True))


def aligned(values: Sequence[Value]) -> Value | None:
    """An operand that has the rows, None if there is none. Raises MixesRows unless all operands with rows have them on
    one axis, in equal blocks, and each constant has one element along that axis (or no such axis)."""
    leading: Value | None = None
    for value in values:
        if data(value).kind is ROWS:
            if leading is not None and leading.layout != value.layout:
                raise MixesRows("has the rows on different axes of two operands: each row would meet all others")
            leading = value
    if leading is not None:
        axis = leading.layout[0]
        for value in values:
            shape = shaped(value)
            if value.kind is CONST and len(shape) >= -axis and shape[axis] != 1:
                raise MixesRows("has a constant with several elements along the batch axis")
    return leading


def elementwise(values: Sequence[Value]) -> Value:
    """One result for each element of the broadcast operands."""
    if any(value.shape is None for value in values):
        for value in values:
            fixed(value, "an operand beside one of unknown rank")
        return constant(None)
    leading = aligned(values)
    shape = broadcast([shaped(value) for value in values])
    if leading is None:
        return constant(shape)
    return like(leading, shape, leading.layout[0] + len(shape))


def along(value: Value, axes: Sequence[int], action: str) -> Value:
    """The same shape; elements meet along `axes` only: softmax, cumulative sum, normalisation."""
    apart(value, axes, action)
    return like(value, shaped(value)) if value.shape is not None else constant(None)


def reversed_sequences(value: Value, lengths: Value, batch: int, time: int) -> Value:
    """Reverses the first elements along the axis `time`, as many as `lengths` says for each place of the axis
    `batch`."""
    result = along(value, [time], "reverses")
    lengths = data(lengths)
    in_rows = value.kind is ROWS and value.axis == batch
    if lengths.kind is ROWS and (not in_rows or lengths.layout[1:] != value.layout[1:]):
        raise MixesRows("takes the lengths of other rows")
    if lengths.kind is CONST and in_rows:
        raise MixesRows("takes a constant with as many elements as there are rows")
    return result


def reduced(value: Value, axes: Sequence[int], keep: bool, action: str = "reduces") -> Value:
    """`axes` are reduced to one element each, which stays as an axis if `keep` is set."""
    shape = shaped(value)
    gone = sorted({axis_of(value, axis) for axis in axes})
    apart(value, gone, action)
    kept = [ONE if i in gone else size for i, size in enumerate(shape) if keep or i not in gone]
    return like(value, kept, value.axis if keep else value.axis - sum(axis < value.axis for axis in gone))


def resized(value: Value, sizes: Mapping[int, Size], action: str) -> Value:
    """The same rank, with new sizes for the axes along which elements meet or move."""
    apart(value, list(sizes), action)
    new = {axis_of(value, axis): size for axis, size in sizes.items()}
    return like(value, [new.get(i, size) for i, size in enumerate(shaped(value))])


def matmul(a: Value, b: Value) -> Value:
    """A matrix product, as numpy's. The rows may be on an axis that is not summed; on both operands only as a common
    axis of the stack of matrices."""
    shape_a, shape_b = shaped(data(a)), shaped(data(b))
    if not shape_a or not shape_b:
        raise NotUnderstood("multiplies a scalar as a matrix")
    wide_a = a if len(shape_a) > 1 else replace(a, shape=(ONE, *shape_a), axis=a.axis + 1)
    wide_b = b if len(shape_b) > 1 else replace(b, shape=(*shape_b, ONE))
    full_a, full_b = shaped(wide_a), shaped(wide_b)
    for value, summed in ((wide_a, -1), (wide_b, -2)):
        if value.kind is ROWS and value.layout[0] == summed:
            raise MixesRows("sums over the batch axis")
    if wide_a.kind is ROWS and wide_b.kind is ROWS and (wide_a.layout != wide_b.layout or wide_a.layout[0] >= -2):
        raise MixesRows("multiplies rows with other rows")
    leading = wide_a if wide_a.kind is ROWS else wide_b if wide_b.kind is ROWS else None
    if leading is not None and leading.layout[0] < -2:
        aligned([wide_a, wide_b])
    full = [*broadcast([full_a[:-2], full_b[:-2]]), full_a[-2], full_b[-1]]
    axis = 0 if leading is None else leading.layout[0] + len(full)
    if len(shape_b) == 1:
        full.pop()
    if len(shape_a) == 1:
        at = len(full) - 1 - (len(shape_b) > 1)
        full.pop(at)
        axis -= axis > at
    return constant(full) if leading is None else rows(full, axis, leading.outer, leading.inner)


def einsum(equation: str, values: Sequence[Value]) -> Value:
    """A sum of products in Einstein's notation. The letter of the rows must be kept, and be the same in all operands
    with rows."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or "." in equation or len(terms) != len(values) or len(set(right)) != len(right):
        raise NotUnderstood("sums by an equation that is not understood")
    sizes: dict[str, Size] = {}
    for term, value in zip(terms, values, strict=True):
        shape = shaped(data(value))
        if len(shape) != len(term) or len(set(term)) != len(term):
            raise NotUnderstood("sums by an equation that is not understood")
        for letter, size in zip(term, shape, strict=True):
            sizes[letter] = met(sizes.get(letter, ONE), size)
    leading = [(term[value.axis], value) for term, value in zip(terms, values, strict=True) if value.kind is ROWS]
    if any(letter not in sizes for letter in right):
        raise NotUnderstood("sums by an equation that is not understood")
    result = [sizes[letter] for letter in right]
    if not leading:
        return constant(result)
    letter, first = leading[0]
    if letter not in right:
        raise MixesRows("sums over the batch axis")
    if any(other != letter or value.layout[1:] != first.layout[1:] for other, value in leading):
        raise MixesRows("multiplies rows with other rows")
    for term, value in zip(terms, values, strict=True):
        if letter in term and value.kind is CONST and shaped(value)[term.index(letter)] != 1:
            raise MixesRows("has a constant with several elements along the batch axis")
        if letter in term and value.kind is ROWS and term.index(letter) != value.axis:
            raise MixesRows("multiplies rows with other rows")
    return rows(result, right.index(letter), first.outer, first.inner)


def windowed(value: Value, weights: Sequence[Value | None], sizes: Sequence[Size], channels: Size) -> Value:
    """A convolution or pooling: axis 0 is the batch, elements meet along all others."""
    for weight in weights:
        fixed(weight, "a weight")
    shape = shaped(data(value))
    if len(shape) < 3:
        raise NotUnderstood("has a window over fewer than three axes")
    apart(value, range(1, len(shape)), "has a window")
    return like(value, [shape[0], channels, *sizes])


def resized_images(value: Value, target: Sequence[Size]) -> Value:
    """Images of another height and width; axis 0 is the batch, axis 3 the channels."""
    shape = shaped(value)
    if len(shape) != 4 or len(target) != 2:
        raise NotUnderstood("resizes a tensor that has not four axes")
    if any(size.batched for size in target):
        raise MixesRows("resizes to the number of rows")
    return resized(value, {1: target[0], 2: target[1], 3: shape[3]}, "resizes")


def merged(a: Value, b: Value) -> Value:
    """One of the two values, chosen by a condition that is the same for all rows."""
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        if data(a).kind is CONST and data(b).kind is CONST:
            return constant(None)
        raise NotUnderstood("has branches of different rank")
    if a.kind is not b.kind or (a.kind is not CONST and a.layout != b.layout):
        raise MixesRows("has branches that treat rows differently")
    if a.shape != b.shape:
        if a.kind is CONST:
            return constant(None)
        # One name for "either of the two" would make the sizes of two branches equal that need not be.
        raise NotUnderstood("has branches of different shape")
    return like(data(a), a.shape)
