"""Operators on elements of shapes that are known.

A function here gives exact elements or raises: then the node is treated like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from inferd.backends.independence.elements import (
    SMALL,
    arithmetic,
    bounded,
    compared,
    divided,
    each,
    equal,
    larger,
    less,
    objects,
    remainder,
    small_shape,
    truth,
    whole,
)
from inferd.backends.independence.sizes import NotUnderstood, Refusal, Size, product, size_of, smaller
from inferd.backends.independence.slices import All, Pick, Take
from inferd.backends.independence.values import Known, Value
from inferd.backends.tensorflow.independence.bounds import sliced_axes
from inferd.backends.tensorflow.independence.node import BOOL, WHOLE, Node

_MOST_RANK = 8


def folded(node: Node) -> list[Known] | None:
    """The elements of the node's outputs, None if they are not known."""
    results: Known | Sequence[Known]
    try:
        if node.operator in _SHAPES:
            results = _SHAPES[node.operator](node)
        else:
            fold = _FOLDS.get(node.operator)
            if fold is None or not node.items:
                return None
            arrays = []
            for item in node.items:
                if not isinstance(item, Value) or item.known is None:
                    return None
                arrays.append(item.known)
            results = fold(node, *arrays)
    except (Refusal, TypeError, ValueError, IndexError, OverflowError, ZeroDivisionError):
        return None
    found = list(results) if isinstance(results, (list, tuple)) else [results]
    return found if all(array.size <= SMALL and array.ndim <= _MOST_RANK for array in found) else None


# --- operators that read shapes alone


def _shape_of(value: Value) -> Known:
    if value.shape is None:
        raise NotUnderstood("reads a tensor of unknown rank")
    array = np.empty(len(value.shape), dtype=object)
    array[:] = [bounded(size) for size in value.shape]
    return array


def _sized(node: Node) -> None:
    if node.data_type("out_type") not in WHOLE:
        raise NotUnderstood("gives a shape of another type")


def _shape(node: Node) -> Known:
    _sized(node)
    return _shape_of(node.x)


def _shapes(node: Node) -> list[Known]:
    _sized(node)
    return [_shape_of(value) for value in node.given]


def _count(node: Node) -> Known:
    _sized(node)
    return np.array(bounded(product([whole(size) for size in _shape_of(node.x)])), dtype=object)


def _rank(node: Node) -> Known:
    return np.array(len(_shape_of(node.x)))


_SHAPES: dict[str, Callable[[Node], Known | list[Known]]] = {
    "Shape": _shape,
    "ShapeN": _shapes,
    "Size": _count,
    "Rank": _rank,
}


# --- operators on elements


def _plain(function: Callable[..., Known]) -> Callable[..., Known]:
    """A function of elements alone."""
    return lambda _node, *arrays: function(*arrays)


def _unchanged(_node: Node, array: Known, *_: Known) -> Known:
    return array


def _several(_node: Node, *arrays: Known) -> list[Known]:
    return list(arrays)


def _cast(node: Node, array: Known) -> Known:
    to = node.data_type("DstT")
    if to in WHOLE and array.dtype.kind != "f":
        result = [
            size_of(int(e)) if isinstance(e, (bool, np.bool_)) else bounded(whole(e))
            for e in array.reshape(-1).tolist()
        ]
        return objects(result, array.shape)
    if to == BOOL and array.dtype == bool:
        return array
    raise NotUnderstood("casts to a type that shapes do not have")


def _floor_divided(a: Size, b: Size) -> Size:
    if a.number is not None and b.number is not None:
        return size_of(a.number // b.number)
    return divided(_natural(a), _natural(b))


def _floor_remainder(a: Size, b: Size) -> Size:
    if a.number is not None and b.number is not None:
        return size_of(a.number % b.number)
    return remainder(_natural(a), _natural(b))


def _natural(size: Size) -> Size:
    """The size. Raises NotUnderstood if it may be negative: then the ways to round differ."""
    if size.least is None or size.least < 0:
        raise NotUnderstood("divides what may be negative")
    return size


def _truncated_remainder(a: Size, b: Size) -> Size:
    return remainder(_natural(a), _natural(b))


def _whole_type(node: Node) -> None:
    if node.data_type("T") not in WHOLE:
        raise NotUnderstood("computes with another type than shapes have")


def _computed(function: Callable[[Size, Size], Size]) -> Callable[..., Known]:
    each_pair = arithmetic(function)

    def apply(node: Node, *arrays: Known) -> Known:
        _whole_type(node)
        return each_pair(*arrays)

    return apply


def _negated(node: Node, array: Known) -> Known:
    _whole_type(node)
    return each(lambda a: bounded(-whole(a)))(array)


def _axis(array: Known, *extra: int) -> int:
    """The number in an input that names an axis."""
    if array.dtype.kind not in "iu" or array.size != 1:
        raise NotUnderstood("has an axis that is not known")
    return int(array.reshape(-1)[0])


def _numbers(array: Known) -> list[int]:
    if array.dtype.kind not in "iu":
        raise NotUnderstood("takes axes or bounds that are not known")
    return [int(item) for item in array.reshape(-1)]


def _concat(_node: Node, *arrays: Known) -> Known:
    return _joined(arrays[:-1], _axis(arrays[-1]))


def _old_concat(_node: Node, *arrays: Known) -> Known:
    return _joined(arrays[1:], _axis(arrays[0]))


def _joined(arrays: Sequence[Known], axis: int) -> Known:
    if sum(array.size for array in arrays) > SMALL:
        raise NotUnderstood("makes a large tensor")
    return np.concatenate(arrays, axis)


def _pack(node: Node, *arrays: Known) -> Known:
    if sum(array.size for array in arrays) > SMALL:
        raise NotUnderstood("makes a large tensor")
    return np.stack(arrays, node.integer("axis"))


def _unpack(node: Node, array: Known) -> list[Known]:
    axis = node.integer("axis")
    return [np.take(array, i, axis) for i in range(array.shape[axis])]


def _split(node: Node, axis: Known, array: Known) -> list[Known]:
    return np.split(array, node.outputs, _axis(axis))


def _split_by_sizes(node: Node, array: Known, sizes: Known, axis: Known) -> list[Known]:
    parts, at = _numbers(sizes), _axis(axis)
    if parts.count(-1) == 1:
        parts[parts.index(-1)] = array.shape[at] - sum(parts) - 1
    if len(parts) != node.outputs or sum(parts) != array.shape[at] or min(parts) < 0:
        raise NotUnderstood("splits into parts that are not known")
    return np.split(array, np.cumsum(parts)[:-1], at)


def _strided_slice(node: Node, array: Known, *_: Known) -> Known:
    steps = sliced_axes(node, array.ndim)
    where: list[slice | int] = []
    places: list[int] = []
    for step in steps:
        if isinstance(step, All):
            where.append(slice(None))
        elif isinstance(step, Pick):
            where.append(_known(step.index))
        elif isinstance(step, Take):
            where.append(
                slice(
                    None if step.start is None else _known(step.start),
                    None if step.end is None else _known(step.end),
                    _known(step.step),
                )
            )
    at = 0
    for step in steps:
        if isinstance(step, Pick):
            continue
        if not isinstance(step, (All, Take)):
            places.append(at)
        at += 1
    return np.expand_dims(array[tuple(where)], tuple(places))


def _known(size: Size) -> int:
    if size.number is None:
        raise NotUnderstood("takes axes or bounds that are not known")
    return size.number


def _slice(_node: Node, array: Known, begin: Known, size: Known) -> Known:
    starts, sizes = _numbers(begin), _numbers(size)
    if len(starts) != array.ndim or len(sizes) != array.ndim or min([0, *starts]) < 0 or min([0, *sizes]) < -1:
        raise NotUnderstood("has bounds for other axes than there are")
    where = tuple(
        slice(start, None if count == -1 else start + count) for start, count in zip(starts, sizes, strict=True)
    )
    return array[where]


def _gather(node: Node, array: Known, index: Known, *axis: Known) -> Known:
    if node.operator == "GatherV2" and node.integer("batch_dims"):
        raise NotUnderstood("picks by batches")
    if index.dtype.kind not in "iu" or array.size * max(1, index.size) > SMALL * SMALL or (index < 0).any():
        raise NotUnderstood("picks by sizes that are not known")
    return np.asarray(np.take(array, index, _axis(axis[0]) if axis else 0))


def _reshape(_node: Node, array: Known, shape: Known) -> Known:
    target = _numbers(shape)
    if len(target) > _MOST_RANK or 0 in target:
        raise NotUnderstood("reshapes to a shape that is not known")
    return array.reshape(target)


def _expand_dims(_node: Node, array: Known, axis: Known) -> Known:
    return np.expand_dims(array, _axis(axis))


def _squeeze(node: Node, array: Known) -> Known:
    axes = node.integers("squeeze_dims")
    return np.squeeze(array, tuple(axes) if axes else None)


def _transpose(_node: Node, array: Known, order: Known) -> Known:
    return np.transpose(array, _numbers(order))


def _reversed(_node: Node, array: Known, axes: Known) -> Known:
    return np.flip(array, tuple(_numbers(axes)))


def _tile(_node: Node, array: Known, repeats: Known) -> Known:
    times = _numbers(repeats)
    small_shape([size * count for size, count in zip(array.shape, times, strict=True)])
    return np.tile(array, times)


def _broadcast_to(_node: Node, array: Known, shape: Known) -> Known:
    target = _numbers(shape)
    small_shape(target)
    return np.broadcast_to(array, target)


def _fill(_node: Node, shape: Known, value: Known) -> Known:
    if value.size != 1:
        raise NotUnderstood("fills with what is not known")
    target = _numbers(shape)
    small_shape(target)
    return np.full(target, value.reshape(-1)[0], dtype=value.dtype)


def _range(_node: Node, *bounds: Known) -> Known:
    start, limit, step = (_axis(bound) for bound in bounds)
    if step == 0 or abs((limit - start) // step) > SMALL:
        raise NotUnderstood("makes a large tensor")
    return np.arange(start, limit, step, dtype=np.int64)


def _inverted(_node: Node, order: Known) -> Known:
    places = _numbers(order)
    if order.ndim != 1 or sorted(places) != list(range(len(places))):
        raise NotUnderstood("inverts what is no order of axes")
    return np.argsort(places)


def _reduce(function: Callable[[Size, Size], Size]) -> Callable[..., Known]:
    def apply(node: Node, array: Known, axes: Known) -> Known:
        _whole_type(node)
        given = _numbers(axes)
        if array.ndim != 1 or array.size == 0 or array.dtype.kind == "f" or given not in ([0], [-1]):
            raise NotUnderstood("reduces what is no vector")
        first, *others = array.tolist()
        total = whole(first)
        for element in others:
            total = bounded(function(total, whole(element)))
        return objects([total], (1,) if node.boolean("keep_dims") else ())

    return apply


def _selected(_node: Node, condition: Known, a: Known, b: Known) -> Known:
    if _node.operator == "Select" and condition.shape not in ((), a.shape):
        raise NotUnderstood("chooses whole rows")
    return each(lambda c, x, y: x if truth(c) else y)(condition, a, b)


def _compatible(function: Callable[..., Known]) -> Callable[..., Known]:
    def apply(node: Node, *arrays: Known) -> Known:
        np.broadcast_shapes(*(array.shape for array in arrays))  # else the operator may give a single "not equal"
        return function(*arrays)

    return apply


_FOLDS: dict[str, Callable[..., Known | list[Known]]] = {
    "Identity": _unchanged,
    "IdentityN": _several,
    "Snapshot": _unchanged,
    "StopGradient": _unchanged,
    "PreventGradient": _unchanged,
    "GuaranteeConst": _unchanged,
    "PlaceholderWithDefault": _unchanged,
    "Cast": _cast,
    "Add": _computed(Size.__add__),
    "AddV2": _computed(Size.__add__),
    "Sub": _computed(Size.__sub__),
    "Mul": _computed(Size.__mul__),
    "FloorDiv": _computed(_floor_divided),
    "FloorMod": _computed(_floor_remainder),
    "Div": _computed(divided),
    "TruncateDiv": _computed(divided),
    "Mod": _computed(_truncated_remainder),
    "TruncateMod": _computed(_truncated_remainder),
    "Minimum": _computed(smaller),
    "Maximum": _computed(larger),
    "Neg": _negated,
    "Equal": _compatible(each(equal)),
    "NotEqual": _compatible(each(lambda a, b: not equal(a, b))),
    "Less": _plain(compared(less)),
    "Greater": _plain(compared(lambda a, b: less(b, a))),
    "GreaterEqual": _plain(compared(lambda a, b: not less(a, b))),
    "LessEqual": _plain(compared(lambda a, b: not less(b, a))),
    "LogicalNot": _plain(each(lambda a: not truth(a))),
    "LogicalAnd": _plain(each(lambda a, b: truth(a) and truth(b))),
    "LogicalOr": _plain(each(lambda a, b: truth(a) or truth(b))),
    "Select": _selected,
    "SelectV2": _selected,
    "ConcatV2": _concat,
    "Concat": _old_concat,
    "Pack": _pack,
    "Unpack": _unpack,
    "Split": _split,
    "SplitV": _split_by_sizes,
    "StridedSlice": _strided_slice,
    "Slice": _slice,
    "Gather": _gather,
    "GatherV2": _gather,
    "Reshape": _reshape,
    "ExpandDims": _expand_dims,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "ReverseV2": _reversed,
    "Tile": _tile,
    "BroadcastTo": _broadcast_to,
    "Fill": _fill,
    "Range": _range,
    "InvertPermutation": _inverted,
    "Prod": _reduce(Size.__mul__),
    "Sum": _reduce(Size.__add__),
    "Min": _reduce(smaller),
    "Max": _reduce(larger),
}
