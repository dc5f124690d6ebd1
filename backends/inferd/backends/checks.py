"""Checks that the backends share: a run's inputs, a model's options, declared signatures.

An instance checks its inputs before it passes them to its framework, because the frameworks report wrong inputs late,
unclearly, or not at all. The server checks each request against the signature too; the check here makes an instance
safe by itself, and no other check sees a whole batch. It costs about a microsecond per input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inferd.backends.api import Array, InvalidInput, LoadError, Signature, TensorSpec
from inferd.wire.dtypes import dtype_of


def shape_text(shape: Sequence[int] | None) -> str:
    """A shape as error messages show it: "[-1, 64]", or "of any rank" for None."""
    return "of any rank" if shape is None else "[" + ", ".join(map(str, shape)) + "]"


class SignatureCheck:
    """Checks the inputs and the wanted outputs of one signature. Immutable, thread-safe.

    outputs   the names of all outputs, in the signature's order
    """

    __slots__ = ("_aliases", "_inputs", "_needed", "outputs")

    def __init__(self, signature: Signature) -> None:
        self._inputs: dict[str, tuple[TensorSpec, np.dtype[Any]]] = {
            s.name: (s, s.dtype.numpy) for s in signature.inputs
        }
        self._needed = frozenset(s.name for s in signature.inputs if not s.optional)
        self.outputs = tuple(s.name for s in signature.outputs)
        self._aliases = signature.aliases

    def inputs(self, arrays: Mapping[str, Array]) -> None:
        """Raises InvalidInput for an unknown or missing input and for a wrong element type or shape. The message names
        the tensor, what was expected and what was given."""
        known = self._inputs
        for name, array in arrays.items():
            found = known.get(name)
            if found is None:
                raise InvalidInput(f"unknown input {name!r}; the inputs are {', '.join(known) or 'none'}")
            spec, dtype = found
            if array.dtype != dtype:
                raise InvalidInput(f"input {name!r}: expected {spec.dtype.name}, got {_dtype_text(array)}")
            if spec.shape is not None and not fits(array.shape, spec.shape):
                expected = shape_text(spec.shape)
                raise InvalidInput(f"input {name!r}: expected shape {expected}, got {shape_text(array.shape)}")
        if len(arrays) != len(known):
            missing = sorted(self._needed - arrays.keys())
            if missing:
                raise InvalidInput(f"missing input {', '.join(map(repr, missing))}")

    def leaves_sizes_open(self, arrays: Mapping[str, Array]) -> bool:
        """Whether a caller could choose a size that the model does not take, although the inputs fit the signature: a
        shape that is not declared, a dimension of any size behind the first one, or different sizes of the first one.
        For failed runs only."""
        rows = set()
        for name, array in arrays.items():
            shape = self._inputs[name][0].shape
            if shape is None or -1 in shape[1:]:
                return True
            if shape and shape[0] == -1:
                rows.add(array.shape[0])
        return len(rows) > 1

    def wanted(self, outputs: Sequence[str] | None) -> Sequence[str]:
        """The names of the outputs to return; None asks for all. Raises InvalidInput for an unknown name."""
        if outputs is None:
            return self.outputs
        for name in outputs:
            if name not in self.outputs and name not in self._aliases:
                raise InvalidInput(f"unknown output {name!r}; the outputs are {', '.join(self.outputs) or 'none'}")
        return outputs


class SignatureTable:
    """The checks of all signatures of a model, by signature name. Immutable, thread-safe.

    Looking up an unknown name raises InvalidInput.
    """

    __slots__ = ("_checks",)

    def __init__(self, signatures: Sequence[Signature]) -> None:
        self._checks = {signature.name: SignatureCheck(signature) for signature in signatures}

    def __getitem__(self, name: str) -> SignatureCheck:
        check = self._checks.get(name)
        if check is None:
            raise InvalidInput(f"unknown signature {name!r}; the signatures are {', '.join(self._checks)}")
        return check


def fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether the shape of an array matches a shape of a signature, in which -1 stands for any size."""
    if len(shape) != len(wanted):
        return False
    for have, want in zip(shape, wanted, strict=True):  # noqa: SIM110 -- on the hot path, a generator costs double
        if have != want and want >= 0:
            return False
    return True


def check_options(backend: str, options: Mapping[str, Any], known: Mapping[str, type]) -> None:
    """Raises LoadError for an unknown key and for a value that is not of the key's type. True is no int."""
    for key, value in options.items():
        if key not in known:
            names = ", ".join(sorted(known)) or "none"
            raise LoadError(f"unknown option {key!r} of the {backend} backend; known are: {names}")
        if not isinstance(value, known[key]) or (isinstance(value, bool) and known[key] is not bool):
            raise LoadError(f"option {key!r} of the {backend} backend: expected {known[key].__name__}, got {value!r}")


def agree(role: str, declared: TensorSpec, found: TensorSpec) -> TensorSpec:
    """Combines a tensor's declaration with the artefact's own description; a dimension is fixed if either fixes it.

    `role` is "input" or "output", for messages. Raises LoadError if the two contradict each other. Whether the input is
    optional is taken from the artefact alone: without an input that it needs, the model fails, whatever is declared.
    """
    if declared.dtype is not found.dtype:
        raise LoadError(
            f"{role} {declared.name!r} is declared as {declared.dtype.name}, but the model has {found.dtype.name}"
        )
    if declared.shape is None or found.shape is None:
        shape = found.shape if declared.shape is None else declared.shape
    else:
        same = len(declared.shape) == len(found.shape) and all(
            d == f or -1 in (d, f) for d, f in zip(declared.shape, found.shape, strict=True)
        )
        if not same:
            raise LoadError(
                f"{role} {declared.name!r} is declared as {shape_text(declared.shape)}, "
                f"but the model has {shape_text(found.shape)}"
            )
        shape = tuple(f if d < 0 else d for d, f in zip(declared.shape, found.shape, strict=True))
    return TensorSpec(declared.name, declared.dtype, shape, optional=found.optional)


def narrowed(role: str, found: Sequence[TensorSpec], declared: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The artefact's tensors, each combined with its declaration where there is one (see `agree`). Raises LoadError for
    a declared tensor that the artefact does not have."""
    specs = {spec.name: spec for spec in found}
    for spec in declared:
        if spec.name not in specs:
            raise LoadError(f"declared {role} {spec.name!r} is not in the model; it has {', '.join(specs)}")
        specs[spec.name] = agree(role, spec, specs[spec.name])
    return tuple(specs.values())


def _dtype_text(array: Array) -> str:
    try:
        return dtype_of(array).name
    except TypeError:
        return str(array.dtype)
