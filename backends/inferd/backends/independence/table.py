"""The table of a graph language's operators: for each one, a function from a node to the values of its outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

TransferT = TypeVar("TransferT", bound=Callable[..., Any])


class OperatorTable(Generic[TransferT]):
    """Functions by operator. Filled while the modules of the operators are imported, not changed afterwards."""

    def __init__(self) -> None:
        self._transfers: dict[str, TransferT] = {}

    def add(self, *operators: str) -> Callable[[TransferT], TransferT]:
        """A decorator: the function is that of these operators."""

        def register(transfer: TransferT) -> TransferT:
            for operator in operators:
                if operator in self._transfers:
                    raise ValueError(f"operator {operator} has two entries")
                self._transfers[operator] = transfer
            return transfer

        return register

    def get(self, operator: str) -> TransferT | None:
        """The function of an operator, None if it is not understood."""
        return self._transfers.get(operator)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._transfers))


def first_entry(tables: Iterable[OperatorTable[TransferT]], operator: str) -> TransferT | None:
    """The function of an operator in the first table that has it, None if it is not understood."""
    for table in tables:
        found = table.get(operator)
        if found is not None:
            return found
    return None
