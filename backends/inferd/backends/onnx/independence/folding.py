"""Operators on elements of shapes that are known.

A function here gives exact elements or raises: then the node is treated like any other.
"""

from __future__ import annotations

from collections.abc import Callable

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
from inferd.backends.independence.sizes import NotUnderstood, Refusal, Size, size_of, smaller
from inferd.backends.independence.values import Known
from inferd.backends.onnx.independence.node import Node

_INT32, _INT64, _BOOL = 6, 7, 9


def folded(node: Node) -> list[Known] | None:
    """The elements of the node's outputs, None if they are not known."""
    fold = _FOLDS.get(node.operator)
    if fold is None or not node.given:
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
    """A function of elements alone."""
    return lambda _node, *arrays: function(*arrays)


def _cast(node: Node, array: Known) -> Known:
    to = node.integer("to", 0)
    if to in (_INT32, _INT64) and array.dtype.kind != "f":
        result = [
            size_of(int(e)) if isinstance(e, (bool, np.bool_)) else bounded(whole(e))
            for e in array.reshape(-1).tolist()
        ]
        return objects(result, array.shape)
    if to == _BOOL and array.dtype == bool:
        return array
    raise NotUnderstood("casts to a type that shapes do not have")


def _required(numbers: list[int] | None) -> list[int]:
    if numbers is None:
        raise NotUnderstood("has no axes")
    return numbers


def _slice(node: Node, array: Known, *_: Known) -> Known:
    starts, ends = _required(node.numbers_of("starts", 1)), _required(node.numbers_of("ends", 2))
    given, steps = node.numbers_of("axes", 3), node.numbers(4) or [1] * len(starts)
    axes = range(len(starts)) if given is None else given
    where = [slice(None)] * array.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        before_first = step < 0 and end < -array.shape[axis]
        where[axis] = slice(start, None if before_first else end, step)
    return array[tuple(where)]


def _gather(node: Node, array: Known, index: Known) -> Known:
    if index.dtype.kind not in "iu" or array.size * max(1, index.size) > SMALL * SMALL:
        raise NotUnderstood("picks by sizes that are not known")
    return np.asarray(np.take(array, index, node.integer("axis", 0)))


def _expand(node: Node, array: Known, _shape: Known) -> Known:
    shape = np.broadcast_shapes(array.shape, tuple(small_shape(_required(node.numbers(1)))))
    small_shape(shape)
    return np.broadcast_to(array, shape)


def _reshape(node: Node, array: Known, *_: Known) -> Known:
    target = _required(node.numbers_of("shape", 1))
    if len(target) > 8 or 0 in target:
        raise NotUnderstood("reshapes to a shape that is not known")
    return array.reshape(target)


def _squeeze(node: Node, array: Known, *_: Known) -> Known:
    axes = node.numbers_of("axes", 1)
    return np.squeeze(array, None if axes is None else tuple(axes))


def _unsqueeze(node: Node, array: Known, *_: Known) -> Known:
    return np.expand_dims(array, tuple(_required(node.numbers_of("axes", 1))))


def _transpose(node: Node, array: Known) -> Known:
    return np.transpose(array, node.integers("perm"))


def _concat(node: Node, *arrays: Known) -> Known:
    if sum(array.size for array in arrays) > SMALL:
        raise NotUnderstood("makes a large tensor")
    return np.concatenate(arrays, node.integer("axis", 0))


def _split(node: Node, array: Known, *_: Known) -> list[Known]:
    axis = node.integer("axis", 0)
    sizes = node.numbers_of("split", 1)
    if sizes is None:
        if array.shape[axis] % node.outputs:
            raise NotUnderstood("splits into parts of different size")
        sizes = [array.shape[axis] // node.outputs] * node.outputs
    if len(sizes) != node.outputs or sum(sizes) != array.shape[axis] or min(sizes) < 0:
        raise NotUnderstood("splits into parts that are not known")
    return np.split(array, np.cumsum(sizes)[:-1], axis)


def _reduce(function: Callable[[Size, Size], Size]) -> Callable[..., Known]:
    def apply(node: Node, array: Known, *_: Known) -> Known:
        by_input = node.opset >= (13 if node.operator == "ReduceSum" else 18)
        axes = node.numbers(1) if by_input else node.integers("axes")
        if array.ndim != 1 or array.size == 0 or array.dtype.kind == "f" or axes not in (None, [0], [-1]):
            raise NotUnderstood("reduces what is no vector")
        if axes is None and node.integer("noop_with_empty_axes", 0):
            return array
        first, *others = array.tolist()
        total = whole(first)
        for element in others:
            total = bounded(function(total, whole(element)))
        return objects([total], (1,) if node.integer("keepdims", 1) else ())

    return apply


def _filled(node: Node, _shape: Known) -> Known:
    shape = tuple(small_shape(_required(node.numbers(0))))
    value = node.attributes.get("value")
    elements = getattr(value, "elements", None)
    if value is None:
        return np.zeros(shape, np.float32)
    if elements is None or elements.size != 1:
        raise NotUnderstood("fills with what is not known")
    return np.full(shape, elements.reshape(-1)[0])


def _range(node: Node, *_: Known) -> Known:
    start, limit, step = (_required(node.numbers(i))[0] for i in range(3))
    if step == 0 or abs((limit - start) // step) > SMALL:
        raise NotUnderstood("makes a large tensor")
    return np.arange(start, limit, step, dtype=np.int64)


def _unchanged(_node: Node, array: Known) -> Known:
    return array


_FOLDS: dict[str, Callable[..., Known | list[Known]]] = {
    "Identity": _unchanged,
    "Cast": _cast,
    "Add": _plain(arithmetic(Size.__add__)),
    "Sub": _plain(arithmetic(Size.__sub__)),
    "Mul": _plain(arithmetic(Size.__mul__)),
    "Div": _plain(arithmetic(divided)),
    "Mod": _plain(arithmetic(remainder)),
    "Min": _plain(arithmetic(smaller)),
    "Max": _plain(arithmetic(larger)),
    "Neg": _plain(each(lambda a: bounded(-whole(a)))),
    "Equal": _plain(each(equal)),
    "Less": _plain(compared(less)),
    "Greater": _plain(compared(lambda a, b: less(b, a))),
    "GreaterOrEqual": _plain(compared(lambda a, b: not less(a, b))),
    "LessOrEqual": _plain(compared(lambda a, b: not less(b, a))),
    "Not": _plain(each(lambda a: not truth(a))),
    "And": _plain(each(lambda a, b: truth(a) and truth(b))),
    "Or": _plain(each(lambda a, b: truth(a) or truth(b))),
    "Where": _plain(each(lambda condition, a, b: a if truth(condition) else b)),
    "Concat": _concat,
    "Slice": _slice,
    "Gather": _gather,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Expand": _expand,
    "Transpose": _transpose,
    "ReduceProd": _reduce(Size.__mul__),
    "ReduceSum": _reduce(Size.__add__),
    "ReduceMin": _reduce(smaller),
    "ReduceMax": _reduce(larger),
    "Split": _split,
    "ConstantOfShape": _filled,
    "Range": _range,
}
