"""Converts arrays to tensors and back, and named arrays to the arguments of a call.

    named inputs -> one Argument for each parameter of the call -> result -> the values at the outputs' paths

Everything here is immutable and thread-safe. This module does not import torch: the caller passes the module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from inferd.backends.api import Array, BackendError, BrokenContract, InvalidInput, LoadError
from inferd.backends.torch.structure import Output
from inferd.wire.dtypes import DType, bfloat16

Tensor = Any
ToTensor = Callable[[Array], Tensor]

# By torch's name. Types that cannot be sent (complex, float8, quantized) are missing.
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
_PYTHON: Mapping[type, Any] = {bool: np.bool_, int: np.int64, float: np.float64}
_COPY_BELOW = 16 * 1024  # bytes: below this size a copy is cheaper than a view


def dtype_from_torch(dtype: Any) -> DType | None:
    """The element type of a torch.dtype; None if such tensors cannot be sent."""
    return _BY_TORCH_NAME.get(str(dtype))


class _Writable:
    """Presents the memory of a read-only array as writable, because torch warns about read-only arrays. Keeps the array
    alive."""

    __slots__ = ("__array_interface__", "_array")

    def __init__(self, array: Array) -> None:
        self._array = array
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def tensor_maker(torch: Any, device: str) -> ToTensor:
    """A function that makes a tensor on `device` from an array. On the CPU, the tensor shares the array's memory if
    torch can read it in place."""

    def on_cpu(array: Array) -> Tensor:
        is_bfloat16 = array.dtype.kind == "V"  # of the types with this code, signatures have only bfloat16
        if is_bfloat16:
            array = array.view(np.int16)
        flags = array.flags
        if not flags.behaved or not flags.c_contiguous:
            if array.nbytes < _COPY_BELOW or not flags.aligned or not flags.c_contiguous:
                array = array.copy(order="C")
            else:
                array = np.asarray(_Writable(array))
        tensor = torch.from_numpy(array)
        return tensor.view(torch.bfloat16) if is_bfloat16 else tensor

    def on_device(array: Array) -> Tensor:
        # From page-locked memory, the copy is asynchronous; later work on the same stream starts after it.
        return on_cpu(array).to(device, non_blocking=True)

    return on_cpu if device == "cpu" else on_device


def array_maker(torch: Any) -> Callable[[Any, str, Callable[[int], bool]], Array]:
    """A function (value, name, borrowed) that turns an output into a contiguous host array that only the caller holds.

    `borrowed(address)` says whether the tensor storage at an address belongs to the inputs or to the model: such a
    tensor is copied. Numbers and texts become arrays of rank 0, lists of them arrays of rank 1. The function raises
    BrokenContract for values that cannot be sent, BackendError for None.
    """
    tensor_type, strided, brain_float = torch.Tensor, torch.strided, torch.bfloat16
    sendable = frozenset(getattr(torch, name) for name in _TORCH_NAMES.values())

    def make(value: Any, name: str, borrowed: Callable[[int], bool]) -> Array:
        if not isinstance(value, tensor_type):
            return _plain(value, name)
        tensor: Tensor = value
        if tensor.dtype not in sendable or tensor.layout is not strided:
            raise BrokenContract(f"output {name!r} is a {tensor.layout} {tensor.dtype} tensor, which cannot be sent")
        if tensor.requires_grad:
            tensor = tensor.detach()
        if not tensor.is_cpu:
            tensor = tensor.cpu()
        elif borrowed(tensor.untyped_storage().data_ptr()):
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        if not tensor.is_contiguous():
            tensor = tensor.contiguous()
        is_bfloat16 = tensor.dtype is brain_float
        array: Array = tensor.view(torch.int16).numpy().view(bfloat16()) if is_bfloat16 else tensor.numpy()
        return array

    return make


def _plain(value: Any, name: str) -> Array:
    if isinstance(value, str):
        array = np.empty((), object)
        array[()] = value.encode()
        return array
    if type(value) in _PYTHON:
        return np.asarray(value, _PYTHON[type(value)])
    if isinstance(value, list):
        kinds = set(map(type, value))
        if kinds == {str}:
            words = np.empty(len(value), object)
            words[:] = [word.encode() for word in value]
            return words
        if len(kinds) == 1 and (kind := kinds.pop()) in _PYTHON:
            return np.asarray(value, _PYTHON[kind])
    if value is None:  # other inputs may give a tensor
        raise BackendError(f"output {name!r} is missing (None), not a tensor")
    raise BrokenContract(f"output {name!r} is {type(value).__name__}, not a tensor")


class Argument(Protocol):
    """Makes one argument of a call from the named inputs."""

    def __call__(self, inputs: Mapping[str, Array], tensor: ToTensor) -> Any:
        """The argument. `tensor` turns an array into a tensor. Raises InvalidInput."""
        ...


@dataclass(frozen=True, slots=True)
class TensorArgument:
    """A tensor; None if the input was not sent, which an optional one need not be."""

    name: str

    def __call__(self, inputs: Mapping[str, Array], tensor: ToTensor) -> Any:
        array = inputs.get(self.name)
        return None if array is None else tensor(array)


@dataclass(frozen=True, slots=True)
class ScalarArgument:
    """A Python int, float, bool or str, from an array with one element; `default` if the input was not sent."""

    name: str
    python_type: type
    default: Any = None

    def __call__(self, inputs: Mapping[str, Array], tensor: ToTensor) -> Any:
        array = inputs.get(self.name)
        if array is None:
            return self.default
        if array.size != 1:
            expected = self.python_type.__name__
            raise InvalidInput(f"input {self.name!r} is one {expected}: expected 1 element, got {array.size}")
        value = array.item()
        if isinstance(value, bytes):
            try:
                return value.decode()
            except UnicodeDecodeError:
                raise InvalidInput(f"input {self.name!r}: expected UTF-8 text") from None
        return self.python_type(value)


@dataclass(frozen=True, slots=True)
class ScalarListArgument:
    """A list of Python's int, float, bool or str, from an array of rank 1; `default` if the input was not sent."""

    name: str
    python_type: type
    default: Any = None

    def __call__(self, inputs: Mapping[str, Array], tensor: ToTensor) -> Any:
        array = inputs.get(self.name)
        if array is None:
            return self.default
        if array.ndim != 1:
            raise InvalidInput(
                f"input {self.name!r} is a list of {self.python_type.__name__}: expected shape [-1], "
                f"got {list(array.shape)}"
            )
        if self.python_type is not str:
            return list(map(self.python_type, array.tolist()))
        try:
            return [item.decode() for item in array.tolist()]
        except UnicodeDecodeError:
            raise InvalidInput(f"input {self.name!r}: expected UTF-8 texts") from None


@dataclass(frozen=True, slots=True)
class DictArgument:
    """A dictionary of tensors, with the inputs' names as keys."""

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
    """A constant with which the program was exported."""

    value: Any

    def __call__(self, inputs: Mapping[str, Array], tensor: ToTensor) -> Any:
        return self.value


@dataclass(frozen=True, slots=True)
class Plan:
    """How one signature calls its function.

    arguments   the positional arguments
    outputs     the named outputs
    aliases     outputs under further names, which run only when they are asked for
    keywords    the keyword arguments
    arrange     turns the positional arguments into nested (args, kwargs); None if they are not nested
    """

    arguments: tuple[Argument, ...]
    outputs: tuple[Output, ...]
    aliases: tuple[Output, ...] = ()
    keywords: tuple[tuple[str, Argument], ...] = ()
    arrange: Callable[[list[Any]], tuple[Sequence[Any], Mapping[str, Any]]] | None = None


def snippet(inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """A `signatures:` section for model.yaml, in which the user fills in element types and shapes."""
    lines = ["signatures:", "  - inputs:"]
    lines += [f"      - {{name: {name}, dtype: FP32, shape: [-1, ...]}}" for name in inputs]
    lines += ["    outputs:"]
    lines += [f"      - {{name: {name}, dtype: FP32, shape: [-1, ...]}}" for name in outputs]
    return "\n".join(lines)


def needs_declaration(what: str, inputs: Sequence[str], outputs: Sequence[str]) -> LoadError:
    """A LoadError that shows what to write into model.yaml."""
    return LoadError(
        f"{what}; declare it in model.yaml (element types and shapes are yours to fill in):\n{snippet(inputs, outputs)}"
    )
