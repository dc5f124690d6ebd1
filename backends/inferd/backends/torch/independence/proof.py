"""From a signature and a graph to the finding: which inputs have rows, which may be missing, which sizes are equal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from inferd.backends.api import Independence, Signature, TensorSpec
from inferd.backends.independence.sizes import N, Refusal, Size, size_of
from inferd.backends.independence.values import Cause, Value, conclusion, constant, mixed, rows
from inferd.backends.torch.independence.call import Number
from inferd.backends.torch.independence.interpreter import MOST_SECONDS, Interpreter, Stopped
from inferd.backends.torch.independence.memory import TensorRef
from inferd.backends.torch.io import (
    Argument,
    ConstantArgument,
    DictArgument,
    ListArgument,
    Plan,
    ScalarArgument,
    ScalarListArgument,
    TensorArgument,
)
from inferd.backends.torch.structure import Missing, Path, value_at
from inferd.wire.dtypes import DType

_MOST_OPTIONAL = 3  # every combination of optional inputs is analysed
# Runs a graph on positional and keyword arguments; the result is nested as that of a call.
Run = Callable[[Interpreter, Sequence[Any], Mapping[str, Any]], Any]
# For each input, a name for each dimension that is open; equal names must be equal sizes.
Names = Mapping[str, Sequence[str | None]]
_TORCH_NAMES = {
    DType.INT64: "int64",
    DType.INT32: "int32",
    DType.BOOL: "bool",
    DType.UINT8: "uint8",
    DType.FP32: "float32",
    DType.FP64: "float64",
}


def analyse(signature: Signature, plan: Plan, run: Run, names: Names | None = None) -> Independence:
    """Whether the rows of the signature's outputs are independent. Never raises for what the graph holds.

    The batched inputs are those whose first dimension is -1 in `signature`. First, all open dimensions count as
    different; if that proves nothing, those of one name in `names` count as equal, and the result says so.
    """
    until = time.monotonic() + MOST_SECONDS
    finding = _each(signature, plan, run, {}, until)
    groups: dict[str, list[tuple[str, int]]] = {}
    for spec in signature.inputs:
        for axis, name in enumerate((names or {}).get(spec.name, ())):
            if name is not None and not (axis == 0 and _batched(spec)):
                groups.setdefault(name, []).append((spec.name, axis))
    equal = {name: group for name, group in groups.items() if len(group) > 1}
    if finding.proven or not equal:
        return finding
    again = _each(signature, plan, run, equal, until)
    return replace(again, equal=tuple(map(tuple, equal.values()))) if again.proven else finding


def _batched(spec: TensorSpec) -> bool:
    return spec.shape is not None and spec.shape[:1] == (-1,)


def _each(
    signature: Signature, plan: Plan, run: Run, equal: Mapping[str, Sequence[tuple[str, int]]], until: float
) -> Independence:
    """The finding for every combination of optional inputs; the first that is not proven."""
    optional = [spec.name for spec in signature.inputs if spec.optional]
    if len(optional) > _MOST_OPTIONAL:
        reason = f"there are more than {_MOST_OPTIONAL} optional inputs"
        return Independence(False, reason=reason, understood=False)
    finding = Independence(False, reason="no input has an open first dimension")
    for count in range(len(optional) + 1):
        for absent in combinations(optional, count):
            if any(_batched(spec) for spec in signature.inputs if spec.name not in absent):
                finding = _once(signature, plan, run, equal, frozenset(absent), until)
                if not finding.proven:
                    return finding
    return finding


def _once(
    signature: Signature,
    plan: Plan,
    run: Run,
    equal: Mapping[str, Sequence[tuple[str, int]]],
    absent: frozenset[str],
    until: float,
) -> Independence:
    interpreter = Interpreter(until)
    try:
        shared = {place: size for group in equal.values() for size in [interpreter.fresh()] for place in group}
        specs = {spec.name: spec for spec in signature.inputs}
        tensors = {
            name: _input(spec, interpreter, shared)
            for name, spec in specs.items()
            if name not in absent and not _is_number(name, plan)
        }
        bind = _Binding(specs, tensors, absent, interpreter)
        arguments = [bind(argument) for argument in plan.arguments]
        keywords = {name: bind(argument) for name, argument in plan.keywords}
        result = run(interpreter, arguments, keywords)
        return conclusion({output.name: _output(result, output.path) for output in plan.outputs})
    except Stopped as stopped:
        return Independence(False, reason=str(stopped), understood=False)
    except Refusal as refusal:
        return Independence(False, reason=str(refusal), understood=refusal.understood)
    except RecursionError:
        return Independence(False, reason="the graph nests too deeply", understood=False)
    except Exception as error:  # whatever a file holds, it only is not proven
        return Independence(
            False, reason=f"the graph makes the analysis fail ({type(error).__name__})", understood=False
        )


def _is_number(name: str, plan: Plan) -> bool:
    arguments = [*plan.arguments, *(argument for _, argument in plan.keywords)]
    plain = (ScalarArgument, ScalarListArgument)
    return any(isinstance(argument, plain) and argument.name == name for argument in arguments)


def _input(spec: TensorSpec, interpreter: Interpreter, shared: Mapping[tuple[str, int], Size]) -> TensorRef:
    if spec.shape is None:
        raise Stopped(f"the shape of input {spec.name!r} is not declared")
    sizes = []
    for axis, size in enumerate(spec.shape):
        place = spec.name, axis
        sizes.append(size_of(size) if size >= 0 else shared[place] if place in shared else interpreter.fresh())
    dtype = _TORCH_NAMES.get(spec.dtype)
    if _batched(spec):
        return TensorRef(rows([N, *sizes[1:]], 0), dtype)
    return TensorRef(constant(sizes), dtype, own=False)


class _Binding:
    """Makes the arguments of the call from what is known of the inputs."""

    def __init__(
        self,
        specs: Mapping[str, TensorSpec],
        tensors: Mapping[str, TensorRef],
        absent: frozenset[str],
        interpreter: Interpreter,
    ) -> None:
        self._specs = specs
        self._tensors = tensors
        self._absent = absent
        self._interpreter = interpreter

    def __call__(self, argument: Argument) -> Any:
        if isinstance(argument, TensorArgument):
            return self._tensors.get(argument.name)
        if isinstance(argument, ConstantArgument):
            return argument.value
        if isinstance(argument, DictArgument):
            return {name: self._tensors[name] for name in argument.names if name in self._tensors}
        if isinstance(argument, ListArgument):
            return [self._tensors[name] for name in argument.names if name in self._tensors]
        if isinstance(argument, ScalarArgument | ScalarListArgument):
            if argument.name in self._absent:
                return argument.default
            if _batched(self._specs[argument.name]):
                raise Stopped(f"input {argument.name!r} is one value for all rows, but is declared with a batch axis")
            whole = isinstance(argument, ScalarArgument) and argument.python_type is int
            return self._interpreter.fresh(None) if whole else Number(constant([]))
        raise Stopped("an argument is made in a way that is not followed")


def _output(result: Any, path: Path) -> Value:
    try:
        found = value_at(result, path)
    except Missing:
        return mixed(Cause("", "", "is not where the analysis looks for it", understood=False))
    if isinstance(found, TensorRef | Number):
        return found.value
    return constant([])  # a plain value, the same for all rows
