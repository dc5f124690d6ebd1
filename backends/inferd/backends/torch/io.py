"""Arrays to tensors and back, and how named arrays become a call's arguments.

    named inputs -> Argument, one per parameter of the call -> result -> flat outputs -> named outputs

Everything here is immutable and thread-safe. Torch is imported by whoever calls, never at module level.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from inferd.backends.api import Array, BackendError, InvalidInput, LoadError, TensorSpec
from inferd.wire.dtypes import DType, bfloat16

Tensor = Any
ToTensor = Callable[[Array], Tensor]

# Names as in torch. A type that numpy lacks and that cannot travel (complex, float8, quantized) is not here.
_TORCH_NAMES = {
    DType.BOOL: "bool",
    DType.UINT8: "uint8",
    DType.UINT16: "uint16",
    DType.UINT32: "uint32",
    DType.UINT64: "uint64",
    DType.INT8: "int8",
    DType.INT16: "int16",
    DType.INT32: "int32",
    DType.INT64: "int64",
    DType.FP16: "float16",
    DType.FP32: "float32",
    DType.FP64: "float64",
    DType.BF16: "bfloat16",
}
_BY_TORCH_NAME = {f"torch.{name}": dtype for dtype, name in _TORCH_NAMES.items()}
_COPY_BELOW = 16 * 1024
_INDEXED = re.compile(r".+__(\d+)")


def dtype_from_torch(dtype: Any) -> DType | None:
    """The element type of a torch.dtype; None for one that cannot travel."""
    return _BY_TORCH_NAME.get(str(dtype))


def index_in(name: str) -> int | None:
    """2 for "INPUT__2": Triton's way to say which argument or output is meant."""
    found = _INDEXED.fullmatch(name)
    return int(found[1]) if found else None


class _Writable:
    """Memory of a read-only array, offered as writable: torch warns about any other. Keeps the array alive."""

    __slots__ = ("__array_interface__", "_array")

    def __init__(self, array: Array) -> None:
        self._array = array
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def tensor_maker(torch: Any, device: str) -> ToTensor:
    """A function that makes tensors on `device`. On the CPU they share the array's memory where torch can read it."""

    def on_cpu(array: Array) -> Tensor:
        brain = array.dtype.kind == "V"  # what ml_dtypes calls bfloat16: the only such type that is declared
        if brain:
            array = array.view(np.int16)
        flags = array.flags
        if not flags.behaved or not flags.c_contiguous:
            if array.nbytes < _COPY_BELOW or not flags.aligned or not flags.c_contiguous:
                array = array.copy(order="C")
            else:
                array = np.asarray(_Writable(array))
        tensor = torch.from_numpy(array)
        return tensor.view(torch.bfloat16) if brain else tensor

    def on_device(array: Array) -> Tensor:
        # From page-locked memory the copy goes on by itself, and ends before what is queued behind it.
        return on_cpu(array).to(device, non_blocking=True)

    return on_cpu if device == "cpu" else on_device


def array_maker(torch: Any) -> Callable[[Any, str, Callable[[int], bool]], Array]:
    """A function (value, name, borrowed) that makes an output a contiguous host array which nothing else refers to.

    `borrowed(address)` says whether a tensor's storage belongs to the inputs or the model: those are copied. Numbers
    and strings become arrays of rank nought. The function raises BackendError for what cannot travel.
    """
    tensor_type, strided, brain = torch.Tensor, torch.strided, torch.bfloat16
    sendable = frozenset(getattr(torch, name) for name in _TORCH_NAMES.values())

    def make(value: Any, name: str, borrowed: Callable[[int], bool]) -> Array:
        if not isinstance(value, tensor_type):
            return _plain(value, name)
        tensor: Tensor = value
        if tensor.dtype not in sendable or tensor.layout is not strided:
            raise BackendError(f"output {name!r} is a {tensor.layout} {tensor.dtype} tensor, which cannot be sent")
        if tensor.requires_grad:
            tensor = tensor.detach()
        if not tensor.is_cpu:
            tensor = tensor.cpu()
        elif borrowed(tensor.untyped_storage().data_ptr()):
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        if not tensor.is_contiguous():
            tensor = tensor.contiguous()
        array: Array = tensor.view(torch.int16).numpy().view(bfloat16()) if tensor.dtype is brain else tensor.numpy()
        return array

    return make


def _plain(value: Any, name: str) -> Array:
    if isinstance(value, str):
        array = np.empty((), object)
        array[()] = value.encode()
        return array
    if isinstance(value, bool | int | float):
        return np.asarray(value, {bool: np.bool_, int: np.int64, float: np.float64}[type(value)])
    raise BackendError(
        f"output {name!r} is {'missing (None)' if value is None else type(value).__name__}, not a tensor"
    )


class Argument(Protocol):
    """One parameter of a call, made from named arrays."""

    def __call__(self, inputs: Mapping[str, Array], tensor: ToTensor) -> Any: ...


@dataclass(frozen=True, slots=True)
class TensorArgument:
    """A tensor; None when the (optional) input was not sent."""

    name: str

    def __call__(self, inputs: Mapping[str, Array], tensor: ToTensor) -> Any:
        array = inputs.get(self.name)
        return None if array is None else tensor(array)


@dataclass(frozen=True, slots=True)
class ScalarArgument:
    """A Python number, truth value or string, from an array with one element."""

    name: str
    kind: type
    default: Any = None

    def __call__(self, inputs: Mapping[str, Array], tensor: ToTensor) -> Any:
        array = inputs.get(self.name)
        if array is None:
            return self.default
        if array.size != 1:
            raise InvalidInput(f"input {self.name!r} is one {self.kind.__name__}: expected 1 element, got {array.size}")
        value = array.item()
        if isinstance(value, bytes):
            try:
                return value.decode()
            except UnicodeDecodeError:
                raise InvalidInput(f"input {self.name!r}: expected UTF-8 text") from None
        return self.kind(value)


@dataclass(frozen=True, slots=True)
class DictArgument:
    """A dictionary of tensors: the inputs' names are its keys."""

    names: tuple[str, ...]

    def __call__(self, inputs: Mapping[str, Array], tensor: ToTensor) -> Any:
        return {name: tensor(inputs[name]) for name in self.names if name in inputs}


@dataclass(frozen=True, slots=True)
class ListArgument:
    """A list of tensors, in the order of the declared inputs."""

    names: tuple[str, ...]

    def __call__(self, inputs: Mapping[str, Array], tensor: ToTensor) -> Any:
        return [tensor(inputs[name]) for name in self.names if name in inputs]


@dataclass(frozen=True, slots=True)
class ConstantArgument:
    """A value that the program was exported with."""

    value: Any

    def __call__(self, inputs: Mapping[str, Array], tensor: ToTensor) -> Any:
        return self.value


@dataclass(frozen=True, slots=True)
class Output:
    """An output's name, its place in the flat result (a number) or its key, and the declared torch dtype."""

    name: str
    place: int | str
    dtype: DType | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How one signature calls its function. `arrange` turns the arguments into (args, kwargs) where they are nested."""

    arguments: tuple[Argument, ...]
    outputs: tuple[Output, ...]
    keywords: tuple[tuple[str, Argument], ...] = ()
    arrange: Callable[[list[Any]], tuple[Sequence[Any], Mapping[str, Any]]] | None = None


def flat(result: Any) -> dict[int | str, Any]:
    """A result by place: a dictionary by its keys, anything else flattened and counted."""
    if isinstance(result, dict):
        return result
    values: list[Any] = []
    _flatten(result, values)
    return dict(enumerate(values))


def _flatten(value: Any, into: list[Any]) -> None:
    if isinstance(value, tuple | list):
        for part in value:
            _flatten(part, into)
    else:
        into.append(value)


def place_outputs(declared: Sequence[TensorSpec], keyed: bool) -> tuple[Output, ...]:
    """Where declared outputs are found: by key in a dictionary, by number when all are named NAME__i, else in order."""
    if keyed:
        return tuple(Output(s.name, s.name, s.dtype) for s in declared)
    numbers = [index_in(s.name) for s in declared]
    if declared and all(n is not None for n in numbers) and len(set(numbers)) == len(numbers):
        return tuple(Output(s.name, n, s.dtype) for s, n in zip(declared, numbers, strict=True) if n is not None)
    return tuple(Output(s.name, i, s.dtype) for i, s in enumerate(declared))


def snippet(inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """A piece of model.yaml to fill in."""
    lines = ["signatures:", "  - inputs:"]
    lines += [f"      - {{name: {name}, dtype: FP32, shape: [-1, ...]}}" for name in inputs]
    lines += ["    outputs:"]
    lines += [f"      - {{name: {name}, dtype: FP32, shape: [-1, ...]}}" for name in outputs]
    return "\n".join(lines)


def needs_declaration(what: str, inputs: Sequence[str], outputs: Sequence[str]) -> LoadError:
    """The error that says what to write in model.yaml."""
    return LoadError(
        f"{what}; declare it in model.yaml (element types and shapes are yours to fill in):\n{snippet(inputs, outputs)}"
    )
