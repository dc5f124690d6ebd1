"""The messages of a prediction stream, for both clients: options to a Call, ids, answers to outcomes."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator

from inferd.client._shared.core import Call
from inferd.client._shared.errors import (
    InferdError,
    InvalidInput,
    InvalidResponse,
    RequestError,
    error_class,
    status_code,
)
from inferd.client._shared.options import CallOptions
from inferd.client._shared.prediction import Prediction
from inferd.wire.native import StreamFailure, decode_stream_response


def read_outcome(message: bytes, model_of: Callable[[str], str]) -> tuple[str, Prediction | InferdError]:
    """The request id in a PredictStreamResponse, and the request's prediction or error. `model_of` gives the model of a
    request id. Raises InvalidResponse."""
    try:
        request_id, found = decode_stream_response(message)
    except (ValueError, ImportError) as error:
        raise InvalidResponse(f"an answer of the stream cannot be read: {error}") from error
    if isinstance(found, StreamFailure):
        code = status_code(found.code)
        return request_id, error_class(code)(code, found.message, model=model_of(request_id), request_id=request_id)
    return request_id, Prediction(found.model_name, found.version, found.signature, found.outputs, found.request_id)


def stream_call(model: str, options: CallOptions) -> Call:
    """The Call for one request of a stream. Raises InvalidInput for options that only a separate call can have."""
    unfit = {"timeout", "metadata", "stateful"} & options.keys()
    if unfit:
        raise InvalidInput(
            f"{', '.join(sorted(unfit))}: not for a request of a stream; queue_timeout bounds its wait in the server, "
            "result(timeout) the wait for its answer"
        )
    return Call(model, **options)  # type: ignore[misc]


def id_for(given: str, under_way: Container[str], numbers: Iterator[int]) -> str:
    """The id of a request: the one that the caller gave, else a new one. Raises InvalidInput if a request with the
    given id is under way."""
    if given in under_way:
        raise InvalidInput(f"request_id {given!r} is already under way on this stream")
    return given or next(found for found in map("s{}".format, numbers) if found not in under_way)


def of_model(end: InferdError, model: str, request_id: str) -> InferdError:
    """The error that ended a stream, as the error of one of its requests."""
    if not isinstance(end, RequestError):
        return end
    return type(end)(
        end.code, end.message, model=model, request_id=request_id, accepted=end.accepted, retry_after=end.retry_after
    )
