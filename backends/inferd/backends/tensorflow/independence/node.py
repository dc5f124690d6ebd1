"""One node with the items of its inputs.

Each operator is a function from a Node to the items of its outputs. It raises Refusal where rows may meet. An operator
that is not in the tables is not understood.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from inferd.backends.independence.node import SizeInputs
from inferd.backends.independence.sizes import NotUnderstood, Size, computed
from inferd.backends.independence.table import OperatorTable
from inferd.backends.independence.values import Value
from inferd.backends.tensorflow.independence.items import AtLeast, Handle, Item, Ragged
from inferd.backends.tensorflow.independence.program import GraphNode

Transfer = Callable[["Node"], "Item | Sequence[Item]"]

# Numbers of types_pb2.DataType.
FLOAT, DOUBLE, INT32, STRING, INT64, BOOL = 1, 2, 3, 7, 9, 10
WHOLE = (INT32, INT64)


@dataclass(frozen=True, slots=True, eq=False)
class Node(SizeInputs):
    """A node as an operator's function sees it.

    items            of the inputs
    number_of_list   gives another number each time, for lists of parts that belong together
    """

    proto: GraphNode
    items: Sequence[Item]
    number_of_list: Callable[[], int]

    @property
    def operator(self) -> str:
        """The operator's name."""
        return self.proto.operator

    @property
    def outputs(self) -> int:
        """The number of outputs."""
        return self.proto.outputs

    def item(self, index: int) -> Item:
        """An input of any type."""
        if not -len(self.items) <= index < len(self.items):
            raise NotUnderstood(f"has no input {index}")
        return self.items[index]

    def input(self, index: int) -> Value:
        """An input that is a tensor."""
        item = self.item(index)
        if isinstance(item, (Ragged, AtLeast)):
            return item.value
        if not isinstance(item, Value):
            raise NotUnderstood("reads what is no tensor")
        return item

    def handle(self, index: int) -> Handle:
        """An input that is a variable or a table."""
        item = self.item(index)
        if not isinstance(item, Handle):
            raise NotUnderstood("reads a variable or table that is not followed")
        return item

    @property
    def x(self) -> Value:
        """The first input."""
        return self.input(0)

    @property
    def given(self) -> list[Value]:
        """All inputs, as tensors."""
        return [self.input(i) for i in range(len(self.items))]

    def integer(self, name: str) -> int:
        """An attribute that is a whole number."""
        return int(self._field(name, "i").i)

    def boolean(self, name: str) -> bool:
        """An attribute that is true or false."""
        return bool(self._field(name, "b").b)

    def string(self, name: str) -> str:
        """An attribute that is a string."""
        return str(self._field(name, "s").s.decode("utf-8", "replace"))

    def strings(self, name: str) -> list[str]:
        """An attribute that is a list of strings."""
        return [item.decode("utf-8", "replace") for item in self._field(name, "list").list.s]

    def data_type(self, name: str) -> int:
        """An attribute that is an element type, as DataType's number."""
        return int(self._field(name, "type").type)

    def integers(self, name: str) -> list[int]:
        """An attribute that is a list of whole numbers."""
        return [int(item) for item in self._field(name, "list").list.i]

    def function(self, name: str) -> str:
        """The name of the function in an attribute."""
        function = self._field(name, "func").func
        if function.attr:
            raise NotUnderstood("calls a function that has attributes")
        return str(function.name)

    def shape(self, name: str) -> list[int] | None:
        """An attribute that is a shape: -1 for a dimension of any size, None if the rank is not known."""
        shape = self._field(name, "shape").shape
        return None if shape.unknown_rank else [int(dim.size) for dim in shape.dim]

    def _field(self, name: str, kind: str) -> Any:
        value = self.proto.attribute(name)
        if value is None or value.WhichOneof("value") != kind:
            raise NotUnderstood(f"has an attribute {name!r} that is not understood")
        return value

    def width(self, *arguments: Size | int | str, least: int = 1) -> Size:
        """A size that is not followed further: the same for the same operator and arguments."""
        return computed(self.operator, *arguments, least=least)


def new_table() -> OperatorTable[Transfer]:
    """An empty table of operators."""
    return OperatorTable()
