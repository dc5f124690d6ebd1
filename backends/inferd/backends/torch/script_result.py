"""The results of TorchScript methods as their declared types describe them, and the places of outputs in them.

A type tells the places of all tensors as long as it is made of tuples. A list may have any length and a dictionary any
keys: their tensors are found by the names of declared outputs, by the rules in `structure`. A list of Python's numbers
or texts is one output of rank 1. This module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inferd.backends.api import LoadError, TensorSpec
from inferd.backends.torch.structure import Output, Path, index_in
from inferd.wire.dtypes import DType

# The element types of Python's values.
PYTHON_VALUES: Mapping[str, DType] = {
    "IntType": DType.INT64,
    "FloatType": DType.FP64,
    "NumberType": DType.FP64,
    "BoolType": DType.BOOL,
    "StringType": DType.STRING,
}
_KEYS: Mapping[str, Callable[[str], Any]] = {"StringType": str, "IntType": int}


@dataclass(frozen=True, slots=True)
class ScriptType:
    """A type of TorchScript as the results of a method use it.

    kind        "leaf", "tuple", "list", "dict", or "other" for a type that holds no tensors inferd can find
    text        the type as TorchScript writes it
    parts       the types of a tuple's elements; one part for the elements of a list and the values of a dictionary
    dtype       of a leaf that is a Python number or text, or a list of them; None for a tensor
    rank        of such a leaf: 0, or 1 for a list
    key         turns the text of a key into a key of the dictionary
    """

    kind: str
    text: str
    parts: tuple[ScriptType, ...] = ()
    dtype: DType | None = None
    rank: int = 0
    key: Callable[[str], Any] = str

    @property
    def closed(self) -> bool:
        """Whether the type says how many leaves there are."""
        return self.kind == "leaf" or (self.kind == "tuple" and all(part.closed for part in self.parts))

    def leaves(self, path: Path = ()) -> list[tuple[Path, ScriptType]]:
        """The leaves before the first list or dictionary, which has any number of them; all leaves of a closed type."""
        if self.kind == "leaf":
            return [(path, self)]
        found: list[tuple[Path, ScriptType]] = []
        for number, part in enumerate(self.parts if self.kind == "tuple" else ()):
            found += part.leaves((*path, number))
            if not part.closed:
                break
        return found

    def find(self, text: str) -> tuple[Path, ScriptType] | None:
        """The path that the text names, and the type of its leaf. None if it names none."""
        if self.kind == "leaf":
            return None if text else ((), self)
        if self.kind == "other" or not text:
            return None
        parts = text.split(".")
        for count in range(1, len(parts) + 1):  # a dictionary's keys may contain dots
            step, rest = ".".join(parts[:count]), ".".join(parts[count:])
            found = self._step(step, rest)
            if found is not None:
                return found
        return None

    def _step(self, step: str, rest: str) -> tuple[Path, ScriptType] | None:
        if self.kind == "dict":
            try:
                key = self.key(step)
            except ValueError:
                return None
            inner = self.parts[0].find(rest)
        elif not step.isdecimal() or (self.kind == "tuple" and int(step) >= len(self.parts)):
            return None
        else:
            key = int(step)
            inner = self.parts[key if self.kind == "tuple" else 0].find(rest)
        return None if inner is None else ((key, *inner[0]), inner[1])

    def numbered(self, number: int) -> tuple[Path, ScriptType] | None:
        """The leaf with this number, None if the type does not tell which it is."""
        leaves = self.leaves()
        if number < len(leaves):
            return leaves[number]
        last = self._last_list()
        return None if last is None else ((*last[0], number - len(leaves)), last[1].parts[0])

    def _last_list(self) -> tuple[Path, ScriptType] | None:
        """A list of leaves with nothing after it: its leaves have numbers, although it may be of any length."""
        if self.kind == "list" and self.parts[0].kind == "leaf":
            return (), self
        if self.kind != "tuple" or not self.parts or not all(part.closed for part in self.parts[:-1]):
            return None
        inner = self.parts[-1]._last_list()
        return None if inner is None else ((len(self.parts) - 1, *inner[0]), inner[1])

    @property
    def keyed(self) -> bool:
        """Whether there is a dictionary in it."""
        return self.kind == "dict" or any(part.keyed for part in self.parts)


def script_type(type_: Any) -> ScriptType:
    """A type of torch. An optional value counts as the value: a run that gives None fails."""
    kind, text = type_.kind(), str(type_)
    if kind == "OptionalType":
        return script_type(type_.getElementType())
    if kind in ("TensorType", "NoneType"):
        return ScriptType("leaf", text)
    if kind in PYTHON_VALUES:
        return ScriptType("leaf", text, dtype=PYTHON_VALUES[kind])
    if kind == "TupleType":
        return ScriptType("tuple", text, tuple(map(script_type, type_.elements())))
    if kind == "ListType":
        element = script_type(type_.getElementType())
        if element.kind == "leaf" and element.dtype is not None and not element.rank:
            return ScriptType("leaf", text, dtype=element.dtype, rank=1)
        return ScriptType("list", text, (element,))
    if kind == "DictType" and type_.getKeyType().kind() in _KEYS:
        key = _KEYS[type_.getKeyType().kind()]
        return ScriptType("dict", text, (script_type(type_.getValueType()),), key=key)
    return ScriptType("other", text)


def place_script_outputs(declared: Sequence[TensorSpec], returns: ScriptType) -> tuple[Output, ...]:
    """The places of declared outputs in a method's result. Raises LoadError for a name that none of the rules finds,
    and for an output that is declared with another element type or rank than its type has."""
    numbers = [index_in(spec.name) for spec in declared]
    numbered = None not in numbers and len(set(numbers)) == len(numbers)
    found = [returns.find(spec.name) for spec in declared]
    if None in found:
        found = [
            place or (None if number is None else returns.numbered(number))
            for place, number in zip(found, numbers, strict=True)
        ]
        twice = len({place[0] for place in found if place}) < len([place for place in found if place])
        if (None in found or twice) and not numbered and not returns.keyed:
            found = [returns.numbered(position) for position in range(len(declared))]
    outputs = []
    for position, (spec, place) in enumerate(zip(declared, found, strict=True)):
        if place is None:
            raise _not_placed(spec, numbers[position] if numbered else position, returns)
        path, leaf = place
        _agree(spec, leaf)
        leaves = [p for p, _ in returns.leaves()]
        outputs.append(Output(spec.name, path, spec.dtype, leaves.index(path) if path in leaves else None))
    return tuple(outputs)


def _not_placed(spec: TensorSpec, number: int | None, returns: ScriptType) -> LoadError:
    if returns.closed:
        count = len(returns.leaves())
        return LoadError(f"output {spec.name!r} is declared as number {number}, but the method gives {count}")
    return LoadError(
        f"output {spec.name!r} is declared, but the method returns {returns.text}, which does not tell where it is: "
        f"name outputs by their path, such as {example_path(returns)!r}"
    )


def example_path(returns: ScriptType) -> str:
    """The path of some leaf of a type that is not closed, as text."""
    if returns.kind == "leaf":
        return ""
    step = "KEY" if returns.kind == "dict" else "0"
    for number, part in enumerate(returns.parts):
        if returns.kind != "tuple" or not part.closed:
            rest = example_path(part)
            first = str(number) if returns.kind == "tuple" else step
            return f"{first}.{rest}" if rest else first
    return step


def _agree(spec: TensorSpec, leaf: ScriptType) -> None:
    if leaf.dtype is None:
        return
    if spec.dtype is not leaf.dtype:
        raise LoadError(
            f"output {spec.name!r} is declared as {spec.dtype.name}, but the method gives {leaf.text}: "
            f"{leaf.dtype.name}"
        )
    if spec.shape is not None and len(spec.shape) != leaf.rank:
        expected = "[]" if leaf.rank == 0 else "[-1]"
        raise LoadError(
            f"output {spec.name!r} is declared as {list(spec.shape)}, but the method gives {leaf.text}: {expected}"
        )
