"""Sizes of dimensions: polynomials with whole coefficients over symbols.

The symbol of `N` is the number of rows in a batch. All other symbols stand for sizes that do not depend on N. All
values are immutable; the module holds no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from hashlib import blake2b

# Bounds on the work that one size can cause. Real models stay far below them.
_MOST_TERMS = 32
_MOST_FACTORS = 24
_MOST_VALUE = 2**64  # slices end at 2**63 - 1
_MOST_TEXT = 160


class Refusal(Exception):
    """The analysis cannot show that rows stay independent. The message says why."""

    understood = True


class MixesRows(Refusal):
    """The operator lets rows meet, or uses their number."""


class NotUnderstood(Refusal):
    """The analysis cannot follow the operator; it may be harmless."""

    understood = False


@dataclass(frozen=True, order=True, slots=True)
class Symbol:
    """An unknown whole number.

    name    equal names mean equal values
    least   a lower bound: 1 or 0, None if it may be negative
    most    an upper bound, None if none is known
    """

    name: str
    least: int | None = field(default=1, compare=False)
    most: Size | None = field(default=None, compare=False)


class Size:
    """A polynomial: a whole number for each product of symbols. Immutable and hashable."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: dict[tuple[Symbol, ...], int]) -> None:
        self.terms = {factors: number for factors, number in terms.items() if number}
        if len(self.terms) > _MOST_TERMS or any(
            len(factors) > _MOST_FACTORS or abs(number) > _MOST_VALUE for factors, number in self.terms.items()
        ):
            raise NotUnderstood("computes a size that is too complicated to follow")
        self._hash = hash(frozenset(self.terms.items()))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if isinstance(other, int):
            return self.terms == ({(): other} if other else {})
        return isinstance(other, Size) and self.terms == other.terms

    def __bool__(self) -> bool:
        raise NotUnderstood("takes a condition from a size that is not known")

    def __add__(self, other: Size | int) -> Size:
        terms = dict(self.terms)
        for factors, number in size_of(other).terms.items():
            terms[factors] = terms.get(factors, 0) + number
        return Size(terms)

    def __mul__(self, other: Size | int) -> Size:
        terms: dict[tuple[Symbol, ...], int] = {}
        for a, x in self.terms.items():
            for b, y in size_of(other).terms.items():
                factors = tuple(sorted(a + b))
                terms[factors] = terms.get(factors, 0) + x * y
        return Size(terms)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size | int) -> Size:
        return self + -size_of(other)

    def __repr__(self) -> str:
        parts = []
        for factors, number in sorted(self.terms.items()):
            names = [symbol.name for symbol in factors]
            parts.append("*".join(names if number == 1 and names else [str(number), *names]))
        return " + ".join(parts) or "0"

    @property
    def number(self) -> int | None:
        """The value if it is known."""
        if not self.terms:
            return 0
        return self.terms.get(()) if len(self.terms) == 1 else None

    @property
    def batched(self) -> bool:
        """Whether it depends on the number of rows."""
        return any(_ROWS in factors for factors in self.terms)

    @property
    def least(self) -> int | None:
        """A lower bound, None if none is known."""
        total = 0
        for factors, number in self.terms.items():
            low = 1
            for symbol in factors:
                if symbol.least is None:
                    return None
                low *= symbol.least
            if number < 0 and factors:
                return None
            total += number * low
        return total

    @property
    def certain(self) -> bool:
        """Whether it is a whole number with a known lower bound. The symbols of constants that are not known stand for
        numbers of any kind: they may be copied, not computed with."""
        return all(symbol.least is not None for factors in self.terms for symbol in factors)

    @property
    def single(self) -> Symbol | None:
        """The symbol, if the size is one symbol."""
        if len(self.terms) != 1:
            return None
        (factors, number), *_ = self.terms.items()
        return factors[0] if number == 1 and len(factors) == 1 else None

    def over(self, other: Size) -> Size | None:
        """The exact quotient, None if the division leaves a rest or is not understood."""
        if not other.terms:
            return None
        rest, quotient = self, Size({})
        leading = max(other.terms)
        for _ in range(_MOST_TERMS):
            if not rest.terms:
                return quotient
            top = max(rest.terms)
            factors = list(top)
            for symbol in leading:
                if symbol not in factors:
                    return None
                factors.remove(symbol)
            number, remainder = divmod(rest.terms[top], other.terms[leading])
            if remainder:
                return None
            step = Size({tuple(factors): number})
            quotient, rest = quotient + step, rest - step * other
        return None


def size_of(value: Size | int) -> Size:
    """A whole number as a Size."""
    return value if isinstance(value, Size) else Size({(): int(value)})


_ROWS = Symbol("N")
N = Size({(_ROWS,): 1})
ONE = size_of(1)


def symbol(name: str, least: int | None = 1, most: Size | None = None) -> Size:
    """The size that the symbol `name` stands for. Equal names mean equal sizes."""
    if len(name) > _MOST_TEXT:  # names of names would grow without bound
        name = blake2b(name.encode(), digest_size=16).hexdigest()
    return Size({(Symbol(name, least, most),): 1})


def computed(
    operation: str, *arguments: Size | float | str | None, least: int | None = 1, most: Size | None = None
) -> Size:
    """A size that is some function of others. The same function of the same sizes is the same size. Raises MixesRows if
    it depends on the number of rows."""
    if any(isinstance(argument, Size) and argument.batched for argument in arguments):
        raise MixesRows("computes a dimension from the number of rows")
    return symbol(f"{operation}({','.join(map(str, arguments))})", least, most)


def product(sizes: Sequence[Size]) -> Size:
    """The product of sizes; 1 for none."""
    return reduce(Size.__mul__, sizes, ONE)


def at_most(a: Size, b: Size) -> bool:
    """Whether a <= b is certain."""
    gap = (b - a).least
    return gap is not None and gap >= 0


def smaller(a: Size, b: Size) -> Size:
    """The smaller of two sizes."""
    if at_most(a, b):
        return a
    if at_most(b, a):
        return b
    most = a if b.number is not None else b if a.number is not None else None
    low = None if a.least is None or b.least is None else min(a.least, b.least, 1)
    return computed("min", *sorted((a, b), key=repr), least=low if low is None or low >= 0 else None, most=most)


def met(a: Size, b: Size) -> Size:
    """The size that two dimensions give when they are broadcast. Where they differ, one of them is 1, or the model
    fails."""
    if b in (a, 1):
        return a
    if a == 1:
        return b
    for x, y in ((a, b), (b, a)):
        if x.number is not None:  # y is 1 or x: the result is x in both cases
            if y.batched:
                raise MixesRows("broadcasts a fixed size against the number of rows")
            return x
        single = x.single
        if single is not None and single.most == y:  # min(512, T) and T
            return y
    return computed("broadcast", *sorted((a, b), key=repr))
