"""Arithmetic on plain numbers, some of which are sizes: what Python and TorchScript compute between tensors."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from inferd.backends.independence.elements import bounded, equal, less, remainder, whole
from inferd.backends.independence.sizes import MixesRows, NotUnderstood, Refusal, Size, computed, size_of, smaller
from inferd.backends.independence.values import CONST, Cause, constant, mixed
from inferd.backends.torch.independence.call import Number, leaves
from inferd.backends.torch.independence.memory import TensorRef

_MOST_BASE = 2**31  # of a power
_LONGEST_TEXT = 2**16
_ON_TENSORS = ("add", "mul", "is_", "is_not")  # of lists with tensors in them


def compute(name: str, arguments: Sequence[Any], node: str) -> Any:
    """The result of a function on plain values: the value itself, or a Number if it is not known. `name` is one of
    FUNCTIONS."""
    for leaf in leaves(list(arguments)):
        if isinstance(leaf, Number) and leaf.value.cause is not None:
            return leaf
    try:
        return _plain(_compute(name, arguments))
    except Refusal as refusal:
        for leaf in leaves(list(arguments)):
            if isinstance(leaf, TensorRef) and leaf.value.kind is not CONST:
                return Number(mixed(Cause(name, node, "uses the rows as a plain value", understood=False)))
        if any(isinstance(leaf, Size) and leaf.batched for leaf in leaves(list(arguments))):
            return Number(mixed(Cause(name, node, f"computes with the number of rows: {refusal}", refusal.understood)))
        return Number(constant([]))
    except (TypeError, ValueError, ArithmeticError, IndexError, KeyError, AttributeError) as error:
        return Number(mixed(Cause(name, node, f"makes the analysis fail ({type(error).__name__})", understood=False)))


def _plain(value: Any) -> Any:
    return value.number if isinstance(value, Size) and value.number is not None else value


def _compute(name: str, arguments: Sequence[Any]) -> Any:
    function = FUNCTIONS[name]
    parts = list(leaves(list(arguments)))
    if any(isinstance(part, Number) for part in parts):
        raise NotUnderstood("computes with what is not known")
    if name not in _ON_TENSORS and any(isinstance(part, TensorRef) for part in parts):
        raise NotUnderstood("compares tensors as wholes")
    if not any(isinstance(part, Size) for part in parts):
        return _checked(function.plain(*arguments))
    if function.sizes is None:
        raise MixesRows("is no whole number of rows")
    return _checked(function.sizes(*arguments))


def _checked(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        raise NotUnderstood("computes a number that is too large")
    if isinstance(value, str | list | tuple) and len(value) > _LONGEST_TEXT:
        raise NotUnderstood("makes a text or list that is too long")
    return value


def _arithmetic(function: Callable[[Size, Size], Size]) -> Callable[[Any, Any], Any]:
    return lambda a, b: bounded(function(whole(a), whole(b)))


def _floor(a: Size, b: Size) -> int | None:
    """A lower bound of a quotient or remainder."""
    return 0 if a.least is not None and a.least >= 0 and (b.least or 0) >= 1 else None


def _divided(a: Size, b: Size) -> Size:
    exact = a.over(b)
    return computed("floordiv", a, b, least=_floor(a, b)) if exact is None else exact


def _remainder(a: Size, b: Size) -> Size:
    return size_of(0) if a.over(b) is not None else remainder(a, b)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return False
        found = True
        unknown: Refusal | None = None
        for x, y in zip(a, b, strict=True):
            try:
                found = found and _equal(x, y)
            except Refusal as refusal:
                unknown = refusal
        if found and unknown is not None:
            raise unknown
        return found
    if not isinstance(a, Size) and not isinstance(b, Size):
        return bool(a == b)
    return equal(a, b)


def _less(a: Any, b: Any) -> bool:
    return less(whole(a), whole(b))


def _power(base: Any, exponent: Any) -> Size:
    if not isinstance(exponent, int) or not 0 <= exponent <= 8:
        raise NotUnderstood("computes a power that is not followed")
    total = size_of(1)
    for _ in range(exponent):
        total = bounded(total * whole(base))
    return total


def _joined(a: Any, b: Any) -> Any:
    """The sum of numbers, or the concatenation of lists."""
    if isinstance(a, list) and isinstance(b, list):
        return a + b
    if isinstance(a, tuple) and isinstance(b, tuple):
        return a + b
    return bounded(whole(a) + whole(b))


def _smallest(*given: Any) -> Size:
    first, *others = map(whole, given[0] if len(given) == 1 else given)
    for other in others:
        first = smaller(first, other)
    return first


def _largest(*given: Any) -> Size:
    first, *others = map(whole, given[0] if len(given) == 1 else given)
    for other in others:
        first = other if less(first, other) else first
    return first


def _sum(*given: Any) -> Size:
    total = size_of(0)
    for part in given[0] if len(given) == 1 else given:
        total = bounded(total + whole(part))
    return total


def _times(a: Any, b: Any) -> Any:
    if isinstance(a, list) or isinstance(b, list):
        items, count = (a, b) if isinstance(a, list) else (b, a)
        if not isinstance(count, int) or count * len(items) > _LONGEST_TEXT:
            raise NotUnderstood("makes a list that is too long")
        return items * count
    return bounded(whole(a) * whole(b))


class Function:
    """A function on plain values. `sizes`: the same where some are Sizes; None if it is not followed then."""

    __slots__ = ("plain", "sizes")

    def __init__(self, plain: Callable[..., Any], sizes: Callable[..., Any] | None = None) -> None:
        self.plain = plain
        self.sizes = sizes


def _multiply(a: Any, b: Any) -> Any:
    if isinstance(a, list | str) or isinstance(b, list | str):
        return _times(a, b)
    return a * b


def _raised(a: Any, b: Any) -> Any:
    if abs(b) > 64 or abs(a) > _MOST_BASE:
        raise NotUnderstood("computes a power that is not followed")
    return a**b


FUNCTIONS: dict[str, Function] = {
    "add": Function(operator.add, _joined),
    "sub": Function(operator.sub, _arithmetic(Size.__sub__)),
    "mul": Function(_multiply, _times),
    "floordiv": Function(operator.floordiv, _arithmetic(_divided)),
    "mod": Function(operator.mod, _arithmetic(_remainder)),
    "remainder": Function(operator.mod, _arithmetic(_remainder)),
    "truediv": Function(operator.truediv),
    "div": Function(operator.truediv),
    "pow": Function(_raised, _power),
    "neg": Function(operator.neg, lambda a: bounded(-whole(a))),
    "pos": Function(operator.pos, whole),
    "abs": Function(abs, lambda a: _largest(a, -whole(a))),
    "eq": Function(operator.eq, _equal),
    "ne": Function(operator.ne, lambda a, b: not _equal(a, b)),
    "lt": Function(operator.lt, _less),
    "gt": Function(operator.gt, lambda a, b: _less(b, a)),
    "le": Function(operator.le, lambda a, b: not _less(b, a)),
    "ge": Function(operator.ge, lambda a, b: not _less(a, b)),
    "not_": Function(operator.not_),
    "and_": Function(operator.and_),
    "or_": Function(operator.or_),
    "xor": Function(operator.xor),
    "min": Function(min, _smallest),
    "max": Function(max, _largest),
    "sum": Function(lambda *a: sum(a[0] if len(a) == 1 else a), _sum),
    "int": Function(int, whole),
    "float": Function(float),
    "bool": Function(bool),
    "trunc": Function(math.trunc, whole),
    "floor": Function(math.floor, whole),
    "ceil": Function(math.ceil, whole),
    "round": Function(round, whole),
    "sqrt": Function(math.sqrt),
    "log": Function(math.log),
    "exp": Function(math.exp),
    "is_": Function(operator.is_),
    "is_not": Function(operator.is_not),
    "contains": Function(operator.contains),
    "str": Function(str),
}
