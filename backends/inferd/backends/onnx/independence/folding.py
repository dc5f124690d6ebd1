"""Elements of shapes that are known: operators on small tensors of whole numbers, whose elements may be Sizes.

A function here gives exact elements or raises: then the node is treated like any other. Numbers wrap around in ONNX and
do not here, so results beyond what any shape needs are refused. Floats are moved, never computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from inferd.backends.independence.sizes import NotUnderstood, Refusal, Size, at_most, computed, size_of, smaller
from inferd.backends.independence.values import Known
from inferd.backends.onnx.independence.node import Node
from inferd.backends.onnx.independence.reader import SMALL

_MOST_NUMBER = 2**31  # whole numbers are at least 32 bits wide
_MOST_FACTOR = 2**24  # of the number of rows and other unknown sizes: room for batches of up to 127 rows in 32 bits
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


def _whole(element: Any) -> Size:
    if isinstance(element, (Size, int)) and not isinstance(element, bool):
        size = size_of(element)
        if size.certain:
            return size
    raise NotUnderstood("computes with what is no whole number")


def _truth(element: Any) -> bool:
    if isinstance(element, (bool, np.bool_)):
        return bool(element)
    raise NotUnderstood("takes as condition what is none")


def _bounded(size: Size) -> Size:
    for factors, number in size.terms.items():
        if abs(number) > (_MOST_FACTOR if factors else _MOST_NUMBER):
            raise NotUnderstood("computes a number that is too large for a shape")
    return size


def _each(function: Callable[..., Any]) -> Callable[..., Known]:
    """Element by element, with broadcasting."""

    def apply(_node: Node, *arrays: Known) -> Known:
        if np.broadcast(*arrays).size > SMALL or any(array.dtype.kind == "f" for array in arrays):
            raise NotUnderstood("computes with floats, or with large tensors")
        result = np.frompyfunc(function, len(arrays), 1)(
            *[_objects(array.reshape(-1).tolist(), array.shape) for array in arrays]
        )
        return np.asarray(result, dtype=object)

    return apply


def _arithmetic(function: Callable[[Size, Size], Size]) -> Callable[..., Known]:
    return _each(lambda a, b: _bounded(function(_whole(a), _whole(b))))


def _divided(a: Size, b: Size) -> Size:
    if a.number is not None and b.number is not None:
        quotient = abs(a.number) // abs(b.number)  # towards zero, as in C
        return size_of(quotient if (a.number >= 0) == (b.number >= 0) else -quotient)
    exact = a.over(b)
    return computed("divided", a, b, least=_floor(a, b)) if exact is None else exact


def _floor(a: Size, b: Size) -> int | None:
    """A lower bound of a quotient or remainder."""
    return 0 if a.least is not None and a.least >= 0 and (b.least or 0) >= 1 else None


def _remainder(a: Size, b: Size) -> Size:
    if a.number is not None and b.number is not None and a.number >= 0 and b.number > 0:
        return size_of(a.number % b.number)
    return computed("remainder", a, b, least=_floor(a, b))


def _less(a: Size, b: Size) -> bool:
    if at_most(a + 1, b):
        return True
    if at_most(b, a):
        return False
    raise NotUnderstood("compares sizes that are not known")


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, (bool, np.bool_)) and isinstance(b, (bool, np.bool_)):
        return bool(a) == bool(b)
    x, y = _whole(a), _whole(b)
    if x == y:
        return True
    if at_most(x + 1, y) or at_most(y + 1, x):
        return False
    raise NotUnderstood("compares sizes that are not known")


def _larger(a: Size, b: Size) -> Size:
    return b if _less(a, b) else a


def _compared(function: Callable[[Size, Size], bool]) -> Callable[..., Known]:
    return _each(lambda a, b: function(_whole(a), _whole(b)))


def _cast(node: Node, array: Known) -> Known:
    to = node.integer("to", 0)
    if to in (_INT32, _INT64) and array.dtype.kind != "f":
        result = [
            size_of(int(e)) if isinstance(e, (bool, np.bool_)) else _bounded(_whole(e))
            for e in array.reshape(-1).tolist()
        ]
        return _objects(result, array.shape)
    if to == _BOOL and array.dtype == bool:
        return array
    raise NotUnderstood("casts to a type that shapes do not have")


def _objects(elements: Sequence[Any], shape: tuple[int, ...]) -> Known:
    array = np.empty(len(elements), dtype=object)
    for i, element in enumerate(elements):
        array[i] = element
    return array.reshape(shape)


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
    shape = np.broadcast_shapes(array.shape, tuple(_small(_required(node.numbers(1)))))
    _small(shape)
    return np.broadcast_to(array, shape)


def _small(shape: Sequence[int]) -> Sequence[int]:
    """The shape. Raises NotUnderstood if a tensor of this shape is not small."""
    count = 1
    for size in shape:
        if not 0 <= size <= SMALL:
            raise NotUnderstood("makes a large tensor")
        count *= size
    if count > SMALL or len(shape) > 8:
        raise NotUnderstood("makes a large tensor")
    return shape


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
        total = _whole(first)
        for element in others:
            total = _bounded(function(total, _whole(element)))
        return _objects([total], (1,) if node.integer("keepdims", 1) else ())

    return apply


def _filled(node: Node, _shape: Known) -> Known:
    shape = tuple(_small(_required(node.numbers(0))))
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
    "Add": _arithmetic(Size.__add__),
    "Sub": _arithmetic(Size.__sub__),
    "Mul": _arithmetic(Size.__mul__),
    "Div": _arithmetic(_divided),
    "Mod": _arithmetic(_remainder),
    "Min": _arithmetic(smaller),
    "Max": _arithmetic(_larger),
    "Neg": _each(lambda a: _bounded(-_whole(a))),
    "Equal": _each(_equal),
    "Less": _compared(_less),
    "Greater": _compared(lambda a, b: _less(b, a)),
    "GreaterOrEqual": _compared(lambda a, b: not _less(a, b)),
    "LessOrEqual": _compared(lambda a, b: not _less(b, a)),
    "Not": _each(lambda a: not _truth(a)),
    "And": _each(lambda a, b: _truth(a) and _truth(b)),
    "Or": _each(lambda a, b: _truth(a) or _truth(b)),
    "Where": _each(lambda condition, a, b: a if _truth(condition) else b),
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
    "ReduceMax": _reduce(_larger),
    "Split": _split,
    "ConstantOfShape": _filled,
    "Range": _range,
}
