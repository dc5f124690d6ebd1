"""Operators on elements of shapes that are known.

A function here gives exact elements or raises: then the operator is treated like any other.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from inferd.backends.independence import operators as rules
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
from inferd.backends.independence.sizes import NotUnderstood, Refusal, Size, size_of, smaller
from inferd.backends.independence.slices import All, New, Pick
from inferd.backends.independence.values import Known
from inferd.backends.litert.independence.layout import steps_of, target_of
from inferd.backends.litert.independence.node import Node

KNOWN_TYPES = ("INT32", "INT64", "BOOL", "FLOAT32")
"""Element types whose numbers mean what they say, and do not wrap around where shapes are computed."""


def folded(node: Node) -> list[Known] | None:
    """The elements of the node's outputs, None if they are not known."""
    fold = _FOLDS.get(node.operator)
    if fold is None or not node.inputs or any(tensor.type not in KNOWN_TYPES for tensor in node.gives):
        return None
    arrays = []
    for value in node.inputs:
        if value is None or value.known is None:
            return None
        arrays.append(value.known)
    try:
        result = fold(node, *arrays)
    except (Refusal, TypeError, ValueError, IndexError, OverflowError, ZeroDivisionError):
        return None
    results = result if isinstance(result, list) else [result]
    return results if all(array.size <= SMALL and array.ndim <= 8 for array in results) else None


def _plain(function: Callable[..., Known]) -> Callable[..., Known]:
    """A function of elements alone. An activation would change them."""

    def apply(node: Node, *arrays: Known) -> Known:
        if node.integer("activation"):
            raise NotUnderstood("has an activation")
        return function(*arrays)

    return apply


def _cast(_node: Node, array: Known) -> Known:
    if _node.gives[0].type not in ("INT32", "INT64") or array.dtype.kind == "f":
        raise NotUnderstood("casts to a type that shapes do not have")
    result = [
        size_of(int(e)) if isinstance(e, (bool, np.bool_)) else bounded(whole(e)) for e in array.reshape(-1).tolist()
    ]
    return objects(result, array.shape)


def _not_negative(function: Callable[[Size, Size], Size]) -> Callable[[Size, Size], Size]:
    """A quotient or remainder that is rounded down is rounded towards zero only where nothing is negative."""

    def apply(a: Size, b: Size) -> Size:
        if (a.least is None or a.least < 0) or (b.least is None or b.least < 1):
            raise NotUnderstood("divides what may be negative")
        return function(a, b)

    return apply


def _strided_slice(node: Node, array: Known, *_: Known) -> Known:
    where: list[slice | int | None] = []
    for step in steps_of(node, array.ndim):
        if isinstance(step, All):
            where.append(slice(None))
        elif isinstance(step, New):
            where.append(None)
        elif isinstance(step, Pick):
            where.append(_number(step.index))
        else:
            start, end = (None if bound is None else _number(bound) for bound in (step.start, step.end))
            stride = _number(step.step)
            if stride < 0 and end is not None and end < -SMALL:
                end = None
            where.append(slice(start, end, stride))
    return np.asarray(array[tuple(where)])


def _number(size: Size) -> int:
    if size.number is None:
        raise NotUnderstood("picks by sizes that are not known")
    return size.number


def _slice(node: Node, array: Known, *_: Known) -> Known:
    begins, counts = node.numbers(1), node.numbers(2)
    where = [slice(begin, None if count < 0 else begin + count) for begin, count in zip(begins, counts, strict=True)]
    return array[tuple(where)]


def _gather(node: Node, array: Known, index: Known) -> Known:
    if node.integer("batch_dims") or index.dtype.kind not in "iu" or array.size * max(1, index.size) > SMALL * SMALL:
        raise NotUnderstood("picks by sizes that are not known")
    return np.asarray(np.take(array, index, node.integer("axis")))


def _reshape(node: Node, array: Known, *_: Known) -> Known:
    target = [_number(size) for size in target_of(node)]
    if len(target) > 8 or 0 in target:
        raise NotUnderstood("reshapes to a shape that is not known")
    return array.reshape(target)


def _squeeze(node: Node, array: Known) -> Known:
    axes = node.integers("squeeze_dims")
    return np.squeeze(array, tuple(axes) if axes else None)


def _expand_dims(node: Node, array: Known, _axis: Known) -> Known:
    return np.expand_dims(array, node.number(1))


def _concatenation(node: Node, *arrays: Known) -> Known:
    if sum(array.size for array in arrays) > SMALL or node.integer("activation"):
        raise NotUnderstood("makes a large tensor")
    return np.concatenate(arrays, node.integer("axis"))


def _pack(node: Node, *arrays: Known) -> Known:
    if sum(array.size for array in arrays) > SMALL:
        raise NotUnderstood("makes a large tensor")
    return np.stack(arrays, node.integer("axis"))


def _unpack(node: Node, array: Known) -> list[Known]:
    axis = node.integer("axis")
    if array.shape[axis] != node.outputs:
        raise NotUnderstood("has another number of outputs than places")
    return [np.asarray(np.take(array, i, axis)) for i in range(node.outputs)]


def _split(node: Node, _axis: Known, array: Known) -> list[Known]:
    axis = node.number(0)
    if array.shape[axis] % node.outputs:
        raise NotUnderstood("splits into parts of different size")
    return np.split(array, node.outputs, axis)


def _reduce(function: Callable[[Size, Size], Size]) -> Callable[..., Known]:
    def apply(node: Node, array: Known, *_: Known) -> Known:
        if array.ndim != 1 or array.size == 0 or array.dtype.kind == "f" or node.numbers(1) not in ([0], [-1]):
            raise NotUnderstood("reduces what is no vector")
        first, *others = array.tolist()
        total = whole(first)
        for element in others:
            total = bounded(function(total, whole(element)))
        return objects([total], (1,) if node.integer("keep_dims") else ())

    return apply


def _fill(node: Node, _shape: Known, value: Known) -> Known:
    if value.size != 1:
        raise NotUnderstood("fills with what is not known")
    return np.full(tuple(small_shape(node.numbers(0))), value.reshape(-1)[0])


def _broadcast_to(node: Node, array: Known, _shape: Known) -> Known:
    shape = tuple(small_shape(node.numbers(1)))
    return np.broadcast_to(array, shape)


def _range(node: Node, *_: Known) -> Known:
    start, limit, step = (node.number(i) for i in range(3))
    if step == 0 or abs((limit - start) // step) > SMALL:
        raise NotUnderstood("makes a large tensor")
    return np.arange(start, limit, step, dtype=np.int64)


def _broadcast_args(node: Node, *_: Known) -> Known:
    sizes = list(rules.broadcast([node.sizes(0), node.sizes(1)]))
    return objects(sizes, (len(sizes),))


def _selected(_node: Node, condition: Known, a: Known, b: Known) -> Known:
    if _node.operator == "SELECT" and condition.shape not in ((), a.shape):
        raise NotUnderstood("chooses whole rows")
    return each(lambda c, x, y: x if truth(c) else y)(condition, a, b)


_FOLDS: dict[str, Callable[..., Known | list[Known]]] = {
    "CAST": _cast,
    "ADD": _plain(arithmetic(Size.__add__)),
    "SUB": _plain(arithmetic(Size.__sub__)),
    "MUL": _plain(arithmetic(Size.__mul__)),
    "DIV": _plain(arithmetic(divided)),
    "FLOOR_DIV": _plain(arithmetic(_not_negative(divided))),
    "FLOOR_MOD": _plain(arithmetic(_not_negative(remainder))),
    "MINIMUM": _plain(arithmetic(smaller)),
    "MAXIMUM": _plain(arithmetic(larger)),
    "NEG": _plain(each(lambda a: bounded(-whole(a)))),
    "EQUAL": _plain(each(equal)),
    "NOT_EQUAL": _plain(each(lambda a, b: not equal(a, b))),
    "LESS": _plain(compared(less)),
    "GREATER": _plain(compared(lambda a, b: less(b, a))),
    "GREATER_EQUAL": _plain(compared(lambda a, b: not less(a, b))),
    "LESS_EQUAL": _plain(compared(lambda a, b: not less(b, a))),
    "LOGICAL_NOT": _plain(each(lambda a: not truth(a))),
    "LOGICAL_AND": _plain(each(lambda a, b: truth(a) and truth(b))),
    "LOGICAL_OR": _plain(each(lambda a, b: truth(a) or truth(b))),
    "SELECT": _selected,
    "SELECT_V2": _selected,
    "STRIDED_SLICE": _strided_slice,
    "SLICE": _slice,
    "GATHER": _gather,
    "RESHAPE": _reshape,
    "SQUEEZE": _squeeze,
    "EXPAND_DIMS": _expand_dims,
    "CONCATENATION": _concatenation,
    "PACK": _pack,
    "UNPACK": _unpack,
    "SPLIT": _split,
    "REDUCE_PROD": _reduce(Size.__mul__),
    "SUM": _reduce(Size.__add__),
    "REDUCE_MIN": _reduce(smaller),
    "REDUCE_MAX": _reduce(larger),
    "FILL": _fill,
    "BROADCAST_TO": _broadcast_to,
    "RANGE": _range,
    "BROADCAST_ARGS": _broadcast_args,
}
