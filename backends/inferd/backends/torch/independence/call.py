"""One call of an operator with what is known of its arguments, and the table of operators.

Each operator is a function from a Call to the values of its results. It raises Refusal where rows may meet. An operator
that is not in the table is not understood. Names are torch's, without "aten::" in front of its own operators and
without the underscore at the end of those that write in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inferd.backends.independence.sizes import MixesRows, NotUnderstood, Size, computed, size_of
from inferd.backends.independence.values import CONST, Value
from inferd.backends.torch.independence.memory import Memory, TensorRef

Transfer = Callable[["Call"], "Value | list[Value]"]
SMALL = 64  # elements: larger constants are known by their shape only


@dataclass(frozen=True, slots=True, eq=False)
class Number:
    """A number, condition, list or other plain value that is not known: CONST if it is the same for all rows and all
    numbers of rows, else MIXED. `memory`: of the tensors in a list that is not known."""

    value: Value
    memory: Memory | None = None

    def tensor(self) -> TensorRef:
        """One of the tensors in a list that is not known."""
        return TensorRef(self.value, memory=self.memory or Memory(own=False))


class Unused:
    """What a branch leaves undefined because nobody reads it."""


def leaves(argument: Any) -> Iterator[Any]:
    """The parts of nested lists, tuples and dictionaries."""
    if isinstance(argument, list | tuple):
        for part in argument:
            yield from leaves(part)
    elif isinstance(argument, dict):
        for part in argument.values():
            yield from leaves(part)
    else:
        yield argument


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call as an operator's function sees it.

    operator    the name in the table
    overload    which of the operators of that name: "dim", "Tensor"
    arguments   by their names in the operator's schema; defaults are filled in
    results     how many results it has
    fresh       makes a size that is known to be at least 1 and not to depend on the number of rows
    """

    operator: str
    overload: str
    arguments: Mapping[str, Any]
    results: int
    fresh: Callable[[], Size]

    def has(self, name: str) -> bool:
        """Whether the argument exists and is not None."""
        return self.arguments.get(name) is not None

    def tensor(self, name: str) -> Value:
        """An argument that must be a tensor."""
        value = self.optional(name)
        if value is None:
            raise NotUnderstood(f"has no tensor {name!r}")
        return value

    def optional(self, name: str) -> Value | None:
        """A tensor, None if it is left out."""
        found = self.arguments.get(name)
        if found is None:
            return None
        if isinstance(found, TensorRef):
            return found.value
        raise NotUnderstood(f"has an argument {name!r} that is no tensor")

    def tensors(self, name: str) -> list[Value]:
        """A list of tensors."""
        found = self.arguments.get(name)
        if not isinstance(found, list | tuple) or not all(isinstance(item, TensorRef) for item in found):
            raise NotUnderstood(f"has an argument {name!r} that is no list of tensors")
        return [item.value for item in found]

    def dtype(self, name: str) -> str | None:
        """The element type of a tensor, None if it is not known."""
        found = self.arguments.get(name)
        return found.dtype if isinstance(found, TensorRef) else None

    @property
    def x(self) -> Value:
        """The first argument."""
        return self.tensor(next(iter(self.arguments), ""))

    @property
    def operands(self) -> list[Value]:
        """All tensors, and all numbers that are not known."""
        found = []
        for leaf in leaves(list(self.arguments.values())):
            if isinstance(leaf, TensorRef | Number):
                found.append(leaf.value)
        return found

    @property
    def others(self) -> list[Value]:
        """All operands but the first one."""
        return self.operands[1:]

    def size(self, name: str) -> Size:
        """A number that may be a size."""
        return as_size(self.arguments.get(name), name)

    def sizes(self, name: str) -> Sequence[Size] | None:
        """Numbers that may be sizes, None if the argument is left out. One number is a list of one."""
        found = self.arguments.get(name)
        if found is None:
            return None
        if isinstance(found, list | tuple):
            return [as_size(item, name) for item in found]
        return [as_size(found, name)]

    def integer(self, name: str) -> int:
        """A number that must be known."""
        return as_integer(self.arguments.get(name), name)

    def integers(self, name: str) -> Sequence[int] | None:
        """Numbers that must be known, None if the argument is left out. One number is a list of one."""
        found = self.arguments.get(name)
        if found is None:
            return None
        return [as_integer(item, name) for item in (found if isinstance(found, list | tuple) else [found])]

    def flag(self, name: str) -> bool:
        """A condition that must be known. One that the operator does not have is false."""
        found = self.arguments.get(name, False)
        if isinstance(found, bool):
            return found
        if isinstance(found, int):
            return bool(found)
        raise NotUnderstood(f"has a setting {name!r} that is not known")

    def width(self, *arguments: Size | float | str | None, least: int = 1) -> Size:
        """A size that is not followed further: the same for the same operator and arguments."""
        return computed(self.operator, *arguments, least=least)


def as_size(item: Any, name: str) -> Size:
    """A number as a Size. Raises NotUnderstood for what is none."""
    if isinstance(item, TensorRef):
        item = element(item.value)
    if isinstance(item, Size):
        return item
    if isinstance(item, int) and not isinstance(item, bool):
        return size_of(item)
    raise NotUnderstood(f"has numbers {name!r} that are not known")


def as_integer(item: Any, name: str) -> int:
    size = as_size(item, name)
    if size.number is None:
        if size.batched:
            raise MixesRows(f"takes {name!r} from the number of rows")
        raise NotUnderstood(f"has numbers {name!r} that are not known")
    return size.number


def element(value: Value) -> Any:
    """The element of a tensor of one known element; None if it is not known."""
    if value.known is None or value.known.size != 1:
        return None
    found = value.known.reshape(-1)[0]
    return found if isinstance(found, Size | bool) else found.item() if isinstance(found, np.generic) else found


def constants(values: Sequence[Value]) -> bool:
    """Whether all are the same for all rows."""
    return all(value.kind is CONST for value in values)


@dataclass(frozen=True, slots=True)
class Entry:
    """An operator of the table.

    sizes      names of the arguments that may hold the number of rows
    shape_of   names of the arguments of which the shape alone matters
    """

    transfer: Transfer
    sizes: frozenset[str]
    shape_of: frozenset[str]


class AtenTable:
    """Functions by operator. Filled while the modules of the operators are imported, not changed afterwards."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def add(self, names: str, sizes: str = "", shape_of: str = "") -> Callable[[Transfer], Transfer]:
        """A decorator: the function is that of these operators."""

        def register(transfer: Transfer) -> Transfer:
            for name in names.split():
                if name in self._entries:
                    raise ValueError(f"operator {name} has two entries")
                self._entries[name] = Entry(transfer, frozenset(sizes.split()), frozenset(shape_of.split()))
            return transfer

        return register

    def get(self, operator: str) -> Entry | None:
        """The entry of an operator, None if it is not understood."""
        return self._entries.get(operator)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))
