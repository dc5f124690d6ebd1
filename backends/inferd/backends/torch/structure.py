"""Where the tensors stand in a call's result, and how outputs are named after their places.

A result nests tuples, lists, dictionaries, named tuples and dataclasses. Its leaves (tensors, Python's numbers and
texts, None) are numbered in the order in which torch flattens the result. The path of a leaf is the steps that lead to
it; as text, they are joined with dots: "logits", "hidden.0", "1.scores".

    not declared   the keys, where the result is one dictionary or named tuple of leaves; else output__N, with the
                   number of the leaf. output__N may be asked for in any case
    declared       the path of a leaf as text, or NAME__N with the number of a leaf; other names belong to the leaves in
                   their order, but only where the result has no keys that could contradict them

This module is pure and does not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inferd.backends.api import LoadError, TensorSpec
from inferd.wire.dtypes import DType

_INDEXED = re.compile(r".+__(\d+)")
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Field:
    """A step to an attribute, of a dataclass. Any other step is an index or a key."""

    name: str


Path = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a call.

    path    the steps that lead to it in the result
    dtype   its element type, which every run checks; None for one that is only assumed
    leaf    the number of its leaf in the result; None where only a run can tell
    """

    name: str
    path: Path
    dtype: DType | None = None
    leaf: int | None = None


class Missing(LookupError):
    """There is nothing at a path. The message says what is there."""


def value_at(result: Any, path: Path) -> Any:
    """What is at the end of the path. Raises Missing."""
    value = result
    for step in path:
        try:
            value = getattr(value, step.name) if type(step) is Field else value[step]
        except (KeyError, IndexError, TypeError, AttributeError):
            raise Missing(_described(value)) from None
    return value


def text_of(path: Path) -> str:
    """A path as text."""
    return ".".join(step.name if type(step) is Field else str(step) for step in path)


def index_in(name: str) -> int | None:
    """The number at the end of a name: 2 for "INPUT__2", None for other names. Triton numbers arguments and outputs of
    torch models in this way."""
    found = _INDEXED.fullmatch(name)
    return int(found[1]) if found else None


def paths_of_tree(spec: Any) -> list[Path]:
    """The paths of the leaves of a torch TreeSpec."""
    from torch.utils import _pytree

    tree = _pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    return [tuple(map(_step, keys)) for keys, _ in _pytree.tree_flatten_with_path(tree)[0]]


def _step(key: Any) -> Any:
    for attribute in ("idx", "key"):  # of a sequence, of a dictionary
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return Field(key.name)


def paths_of_value(value: Any, path: Path = ()) -> list[Path]:
    """The paths of the leaves of a result of TorchScript."""
    if isinstance(value, tuple | list) and not _is_plain_list(value):
        return [found for i, part in enumerate(value) for found in paths_of_value(part, (*path, i))]
    if isinstance(value, dict):
        return [found for key, part in value.items() for found in paths_of_value(part, (*path, key))]
    return [path]


def _is_plain_list(value: Any) -> bool:
    """Whether a value is a list of Python's numbers or texts, which is one output of rank 1."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, bool | int | float | str) for item in value)


def published_names(paths: Sequence[Path], keyed: bool = False) -> list[str]:
    """The names of outputs that are not declared. `keyed`: the steps are fields of a named tuple."""
    texts = [text_of(path) for path in paths]
    if all(len(path) == 1 and (keyed or _is_key(path[0])) for path in paths) and _are_names(texts):
        return texts
    return [f"output__{number}" for number in range(len(paths))]


def numbered_aliases(outputs: Sequence[Output]) -> tuple[Output, ...]:
    """The outputs under the names output__N, where those are not the names that they have: a caller who is used to
    Triton's numbers may ask for them. An output that is called output__N itself keeps its name."""
    taken = {output.name for output in outputs}
    return tuple(
        Output(name, output.path, output.dtype, output.leaf)
        for output in outputs
        if output.leaf is not None and (name := f"output__{output.leaf}") not in taken
    )


def _is_key(step: Any) -> bool:
    return isinstance(step, str | Field)


def _are_names(texts: Sequence[str]) -> bool:
    return len(set(texts)) == len(texts) and all(texts)


def place_outputs(declared: Sequence[TensorSpec], paths: Sequence[Path], what: str) -> tuple[Output, ...]:
    """The places of declared outputs among the leaves at `paths`. `what` is the subject of messages: "the program".
    Raises LoadError for a name that none of the rules finds."""
    by_text = {text_of(path): (path, number) for number, path in enumerate(paths)}

    def at(name: str) -> tuple[Path, int] | None:
        number = index_in(name)
        if name in by_text or number is None:
            return by_text.get(name)
        return (paths[number], number) if number < len(paths) else None

    found = [at(spec.name) for spec in declared]
    if None not in found and len({place[0] for place in found if place}) == len(found):
        return tuple(Output(s.name, p[0], s.dtype, p[1]) for s, p in zip(declared, found, strict=True) if p)
    numbers = [index_in(spec.name) for spec in declared]
    numbered = None not in numbers and len(set(numbers)) == len(numbers)
    keyed = any(_is_key(step) for path in paths for step in path)
    for position, (spec, place) in enumerate(zip(declared, found, strict=True)):
        if place is None and (keyed or numbered):
            number = index_in(spec.name) if numbered else None
            declared_as = f"output {spec.name!r} is declared" + ("" if number is None else f" as number {number}")
            raise LoadError(f"{declared_as}, but {what} gives {_listed(paths)}")
        if position >= len(paths):
            raise LoadError(f"output {spec.name!r} is declared as number {position}, but {what} gives {_listed(paths)}")
    return tuple(Output(s.name, paths[i], s.dtype, i) for i, s in enumerate(declared))


def _listed(paths: Sequence[Path]) -> str:
    texts = [text_of(path) for path in paths[:_SHOWN] if path]
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return f"{len(paths)}" + (f": {', '.join(texts)}{more}" if texts else "")


def _described(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(list(map(str, value))[:_SHOWN]) or "an empty dictionary"
    if isinstance(value, tuple | list):
        return f"{len(value)} values"
    return f"one {type(value).__name__}"
