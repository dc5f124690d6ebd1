"""What the nodes of several graph languages have in common: how an operator's function asks for its inputs."""

from __future__ import annotations

from collections.abc import Sequence

from inferd.backends.independence.elements import number_of, sizes_of
from inferd.backends.independence.sizes import NotUnderstood, Size
from inferd.backends.independence.values import Value


class SizeInputs:
    """Inputs that are shapes, axes or bounds, of a node with inputs that are values."""

    __slots__ = ()

    def input(self, index: int) -> Value:
        """An input that must be there."""
        raise AssertionError("each graph language has its own")

    def sizes(self, index: int) -> list[Size]:
        """The elements of an input that is a shape, axes or bounds."""
        return sizes_of(self.input(index))

    def numbers(self, index: int) -> list[int]:
        """The elements of an input, which must be known numbers."""
        return [number_of(size) for size in self.sizes(index)]

    def number(self, index: int) -> int:
        """The element of an input with one element, which must be a known number."""
        numbers = self.numbers(index)
        if len(numbers) != 1:
            raise NotUnderstood("has several numbers where one is expected")
        return numbers[0]

    def size(self, index: int) -> Size:
        """The element of an input with one element."""
        sizes = self.sizes(index)
        if len(sizes) != 1:
            raise NotUnderstood("has several numbers where one is expected")
        return sizes[0]


class OptionalInputs:
    """Inputs that may be left out.

    inputs   None for an input that is left out
    """

    __slots__ = ()
    inputs: Sequence[Value | None]

    def input(self, index: int) -> Value:
        """An input that must be there."""
        value = self.optional(index)
        if value is None:
            raise NotUnderstood(f"has no input {index}")
        return value

    def optional(self, index: int) -> Value | None:
        """An input, None if it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    @property
    def x(self) -> Value:
        """The first input."""
        return self.input(0)

    @property
    def given(self) -> list[Value]:
        """The inputs that are not left out."""
        return [value for value in self.inputs if value is not None]
