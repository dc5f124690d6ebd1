"""Elements of shapes that are known: arithmetic on small tensors of whole numbers, whose elements may be Sizes.

A function here gives exact elements or raises NotUnderstood. Numbers wrap around in frameworks and do not here, so
results beyond what any shape needs are refused. Floats are moved, never computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from inferd.backends.independence.sizes import MixesRows, NotUnderstood, Size, at_most, computed, size_of
from inferd.backends.independence.values import CONST, SIZE, Known, Value

SMALL = 256  # elements: those of larger tensors are not followed
_MOST_NUMBER = 2**31 - 1  # whole numbers are at least 32 bits wide
_MOST_FACTOR = 2**24  # of the number of rows and other unknown sizes: room for batches of up to 127 rows in 32 bits


def known(elements: Any) -> Value:
    """A value with known elements: whole numbers and Sizes, booleans, or floats."""
    array = np.asarray(elements)
    if array.dtype == object and all(not isinstance(item, Size) or item.number is not None for item in array.flat):
        plain: list[Any] = [item.number if isinstance(item, Size) else item for item in array.flat]
        boolean = bool(plain) and all(isinstance(item, (bool, np.bool_)) for item in plain)
        if all(-(2**63) <= item < 2**63 for item in plain):
            array = np.array(plain, np.bool_ if boolean else np.int64).reshape(array.shape)
    batched = array.dtype == object and any(isinstance(item, Size) and item.batched for item in array.flat)
    value = Value(CONST, tuple(size_of(size) for size in array.shape), known=array)
    return replace(value, kind=SIZE) if batched else value


def sizes_of(value: Value) -> list[Size]:
    """The elements of a value that is a shape, axes or bounds. Raises Refusal if they are not known."""
    if value.known is None or value.known.dtype.kind == "f":
        if value.kind is not CONST:
            raise MixesRows("takes a shape, axes or bounds from the rows")
        raise NotUnderstood("takes a shape, axes or bounds that are not known")
    return [_size(element) for element in value.known.reshape(-1)]


def _size(element: Any) -> Size:
    if isinstance(element, Size):
        return element
    if isinstance(element, (bool, np.bool_)):
        raise NotUnderstood("takes a condition as a size")
    return size_of(int(element))


def number_of(size: Size) -> int:
    """The number, for axes and bounds. Raises Refusal if it is not known."""
    if size.number is None:
        if size.batched:
            raise MixesRows("takes axes or bounds from the number of rows")
        raise NotUnderstood("takes axes or bounds that are not known")
    return size.number


def whole(element: Any) -> Size:
    if isinstance(element, (Size, int)) and not isinstance(element, bool):
        size = size_of(element)
        if size.certain:
            return size
    raise NotUnderstood("computes with what is no whole number")


def truth(element: Any) -> bool:
    if isinstance(element, (bool, np.bool_)):
        return bool(element)
    raise NotUnderstood("takes as condition what is none")


def bounded(size: Size) -> Size:
    for factors, number in size.terms.items():
        if abs(number) > (_MOST_FACTOR if factors else _MOST_NUMBER):
            raise NotUnderstood("computes a number that is too large for a shape")
    return size


def each(function: Callable[..., Any]) -> Callable[..., Known]:
    """Element by element, with broadcasting."""

    def apply(*arrays: Known) -> Known:
        if np.broadcast(*arrays).size > SMALL or any(array.dtype.kind == "f" for array in arrays):
            raise NotUnderstood("computes with floats, or with large tensors")
        result = np.frompyfunc(function, len(arrays), 1)(
            *[objects(array.reshape(-1).tolist(), array.shape) for array in arrays]
        )
        return np.asarray(result, dtype=object)

    return apply


def arithmetic(function: Callable[[Size, Size], Size]) -> Callable[..., Known]:
    return each(lambda a, b: bounded(function(whole(a), whole(b))))


def divided(a: Size, b: Size) -> Size:
    if a.number is not None and b.number is not None:
        quotient = abs(a.number) // abs(b.number)  # towards zero, as in C
        return size_of(quotient if (a.number >= 0) == (b.number >= 0) else -quotient)
    exact = a.over(b)
    return computed("divided", a, b, least=_floor(a, b)) if exact is None else exact


def _floor(a: Size, b: Size) -> int | None:
    """A lower bound of a quotient or remainder."""
    return 0 if a.least is not None and a.least >= 0 and (b.least or 0) >= 1 else None


def remainder(a: Size, b: Size) -> Size:
    if a.number is not None and b.number is not None and a.number >= 0 and b.number > 0:
        return size_of(a.number % b.number)
    return computed("remainder", a, b, least=_floor(a, b))


def less(a: Size, b: Size) -> bool:
    if at_most(a + 1, b):
        return True
    if at_most(b, a):
        return False
    raise NotUnderstood("compares sizes that are not known")


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, (bool, np.bool_)) and isinstance(b, (bool, np.bool_)):
        return bool(a) == bool(b)
    x, y = whole(a), whole(b)
    if x == y:
        return True
    if at_most(x + 1, y) or at_most(y + 1, x):
        return False
    raise NotUnderstood("compares sizes that are not known")


def larger(a: Size, b: Size) -> Size:
    return b if less(a, b) else a


def compared(function: Callable[[Size, Size], bool]) -> Callable[..., Known]:
    return each(lambda a, b: function(whole(a), whole(b)))


def objects(elements: Sequence[Any], shape: tuple[int, ...]) -> Known:
    array = np.empty(len(elements), dtype=object)
    for i, element in enumerate(elements):
        array[i] = element
    return array.reshape(shape)


def small_shape(shape: Sequence[int]) -> Sequence[int]:
    """The shape. Raises NotUnderstood if a tensor of this shape is not small."""
    count = 1
    for size in shape:
        if not 0 <= size <= SMALL:
            raise NotUnderstood("makes a large tensor")
        count *= size
    if count > SMALL or len(shape) > 8:
        raise NotUnderstood("makes a large tensor")
    return shape
