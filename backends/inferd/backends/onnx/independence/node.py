"""One node with the values of its inputs, and the table of operators.

Each operator is a function from a Node to the values of its outputs. It raises Refusal where rows may meet. An operator
that is not in the table is not understood. Names of other domains than ONNX's own have the domain in front:
"ai.onnx.ml:Scaler".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inferd.backends.independence.elements import number_of, sizes_of
from inferd.backends.independence.node import OptionalInputs
from inferd.backends.independence.sizes import NotUnderstood, Size, computed, size_of
from inferd.backends.independence.values import CONST, Value
from inferd.backends.onnx.independence.graph import GraphNode, GraphTensor

Transfer = Callable[["Node"], "Value | list[Value]"]


@dataclass(frozen=True, slots=True, eq=False)
class Node(OptionalInputs):
    """A node as an operator's function sees it.

    operator     with the domain in front, unless it is ONNX's own
    attributes   references to the attributes of a function are resolved
    inputs       None for an input that is left out
    opset        version of the operator's set
    branch       the values of the outputs of a graph inside the node, with the values of the graph around it, and those
                 of its own inputs
    fresh        makes a size that is known to be at least 1 and not to depend on the number of rows
    """

    proto: GraphNode
    operator: str
    attributes: Mapping[str, Any]
    inputs: Sequence[Value | None]
    opset: int
    branch: Callable[..., list[Value]]
    fresh: Callable[[], Size]

    @property
    def outputs(self) -> int:
        """The number of outputs."""
        return len(self.proto.outputs)

    def integer(self, name: str, default: int) -> int:
        """An attribute that is a whole number."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            raise NotUnderstood(f"has an attribute {name!r} that is no whole number")
        return value

    def string(self, name: str, default: str) -> str:
        """An attribute that is a string."""
        value = self.attributes.get(name, default)
        if not isinstance(value, str):
            raise NotUnderstood(f"has an attribute {name!r} that is no string")
        return value

    def integers(self, name: str) -> list[int] | None:
        """An attribute that is a list of whole numbers, None if it is not there."""
        value = self.attributes.get(name)
        if value is None and name not in self.attributes:
            return None
        if not isinstance(value, list) or not all(isinstance(item, int) for item in value):
            raise NotUnderstood(f"has an attribute {name!r} that is no list of whole numbers")
        return value

    def sizes(self, index: int) -> list[Size] | None:
        """The elements of an input that is a shape, None if it is left out."""
        value = self.optional(index)
        if value is None:
            return None
        return sizes_of(value)

    def numbers(self, index: int) -> list[int] | None:
        """The elements of an input, which must be numbers; None if it is left out."""
        sizes = self.sizes(index)
        return None if sizes is None else [number_of(size) for size in sizes]

    def sizes_of(self, name: str, index: int | None) -> list[Size] | None:
        """A shape from an attribute (older versions of operators), else from an input."""
        given = self.integers(name)
        if given is not None:
            return [size_of(item) for item in given]
        return None if index is None else self.sizes(index)

    def numbers_of(self, name: str, index: int | None) -> list[int] | None:
        """Numbers from an attribute, else from an input."""
        sizes = self.sizes_of(name, index)
        return None if sizes is None else [number_of(size) for size in sizes]

    def width(self, *arguments: Size | int | str, least: int = 1) -> Size:
        """A size that is not followed further: the same for the same operator and arguments."""
        return computed(self.operator, *arguments, least=least)


def tensor_value(tensor: GraphTensor) -> Value:
    """The value of a constant."""
    return Value(CONST, tuple(size_of(size) for size in tensor.dims), known=tensor.elements)


def microsoft(names: str) -> list[str]:
    """Operators of ONNX Runtime's own domain."""
    return [f"com.microsoft:{name}" for name in names.split()]
