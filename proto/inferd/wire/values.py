"""The messages of inferd.v1.PredictService as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from inferd.wire.tensors import Array


@dataclass(slots=True, eq=False)
class DecodedRequest:
    """A PredictRequest. `version` and `label` are None if the caller did not give them; `outputs` is empty for all
    outputs; `priority` and `queue_timeout_us` are 0 for the model's default.

    `form` is one object (a MessageForm) for all requests that differ only in their tensors' data and their id. It is
    None for a request that has no known form.
    """

    model_name: str
    version: int | None
    label: str | None
    signature: str
    inputs: dict[str, Array]
    outputs: tuple[str, ...]
    request_id: str
    priority: int
    queue_timeout_us: int
    form: object = None


@dataclass(slots=True, eq=False)
class DecodedResponse:
    """A PredictResponse."""

    model_name: str
    version: int
    signature: str
    outputs: dict[str, Array]
    request_id: str


@dataclass(frozen=True, slots=True)
class StreamFailure:
    """The failure of one request of a stream. `code` is the number of a gRPC status."""

    code: int
    message: str
