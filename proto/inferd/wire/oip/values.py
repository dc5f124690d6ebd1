"""The inference messages of the Open Inference Protocol as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from inferd.wire.dtypes import DType
from inferd.wire.tensors import Array


class Parameter(NamedTuple):
    """The value of a parameter, and the protobuf field in which it was sent ("bool_param", "int64_param", ...; "" for
    none), because the protocol distinguishes an int64 from a uint64."""

    kind: str
    value: bool | int | float | str


Parameters = dict[str, Parameter]


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """An output that the caller wants. `parameters`: classification, shared_memory_*."""

    name: str
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class SharedInput:
    """An input whose data is in shared memory. `parameters`: shared_memory_*."""

    dtype: DType
    shape: tuple[int, ...]
    parameters: Parameters


@dataclass(slots=True, eq=False)
class OipRequest:
    """A ModelInferRequest. `model_version` is "" for the server's choice; `outputs` is empty for all outputs; `shared`
    has the inputs whose data is in shared memory, by name.

    `form` is one object (a MessageForm) for all requests that differ only in their tensors' data and their id. It is
    None for a request that has no known form.
    """

    model_name: str
    model_version: str
    request_id: str
    parameters: Parameters
    inputs: dict[str, Array]
    outputs: tuple[WantedOutput, ...]
    shared: dict[str, SharedInput]
    form: object = None
