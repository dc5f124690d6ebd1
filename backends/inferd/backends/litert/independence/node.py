"""One operator with the values of its inputs, and the table's type.

Each operator is a function from a Node to the values of its outputs. It raises Refusal where rows may meet. An operator
that is not in the table is not understood.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inferd.backends.independence.node import OptionalInputs, SizeInputs
from inferd.backends.independence.sizes import NotUnderstood, Size, computed, size_of
from inferd.backends.independence.table import OperatorTable
from inferd.backends.independence.values import Value, fixed
from inferd.backends.litert.graph import LiteTensor

Transfer = Callable[["Node"], "Value | list[Value]"]


def new_table() -> OperatorTable[Transfer]:
    """An empty table."""
    return OperatorTable()


@dataclass(frozen=True, slots=True, eq=False)
class Node(OptionalInputs, SizeInputs):
    """An operator as its function sees it.

    options   its settings by the names of the schema; those with the schema's default may be missing
    inputs    None for an input that is left out
    given_as  the tensors of the inputs, None for one that is left out
    gives     the tensors of the outputs
    called    the values of the outputs of a subgraph, by its number and the values of its inputs
    """

    operator: str
    options: Mapping[str, Any]
    inputs: Sequence[Value | None]
    given_as: Sequence[LiteTensor | None]
    gives: Sequence[LiteTensor]
    called: Callable[[int, Sequence[Value]], list[Value]]

    @property
    def outputs(self) -> int:
        """The number of outputs."""
        return len(self.gives)

    def integer(self, name: str, default: int = 0) -> int:
        """A setting that is a whole number."""
        return int(self.options.get(name) or default) if name in self.options else default

    def integers(self, name: str) -> list[int]:
        """A setting that is a list of whole numbers; [] for none."""
        found = self.options.get(name)
        return [] if found is None else [int(item) for item in found]

    def matrix(self, index: int) -> list[list[Size]]:
        """The rows of an input that is a matrix of known numbers: paddings."""
        value = self.input(index)
        if value.known is None or value.known.ndim != 2 or value.known.dtype.kind == "f":
            fixed(value, "a padding")
            raise NotUnderstood("has paddings that are not known")
        return [[size_of(item) for item in row] for row in np.asarray(value.known, dtype=object).tolist()]

    def width(self, *arguments: Size | int | str, least: int = 1) -> Size:
        """A size that is not followed further: the same for the same operator and arguments."""
        return computed(self.operator, *arguments, least=least)
