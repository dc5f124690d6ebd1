"""tensorflow.serving.PredictionService: Predict."""

from __future__ import annotations

from time import monotonic

from inferd.server.core.inference import Answer, Query
from inferd.server.errors import ExecutionFailed, ServingError
from inferd.server.rpc.tfs.calls import PROTOCOL, Calls, checked_name
from inferd.server.rpc.transport import UnaryCall
from inferd.wire.tensors import WireError
from inferd.wire.tfs import decode_request, encode_response


class Predict:
    """One request, one answer. Thread-safe."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def __call__(self, call: UnaryCall) -> None:
        """Handles one call."""
        started = monotonic()
        message = call.request
        try:
            request = decode_request(message)
            model, priority = checked_name(request.model_name, call)
        except (WireError, ServingError) as error:
            self._calls.refuse(call, error, monotonic() - started)
            return
        query = Query(
            PROTOCOL,
            model,
            request.version,
            request.label,
            request.signature,
            request.inputs,
            request.outputs,
            priority,
            None,
            call.deadline,
            len(message),
            started,
        )
        self._calls.run(call, query, encode)


def encode(answer: Answer) -> bytes:
    """A PredictResponse. An output that cannot travel is the model's failure, not the caller's."""
    try:
        return encode_response(answer.id.name, answer.id.version, answer.signature, answer.outputs)
    except WireError as error:
        raise ExecutionFailed(f"the model's answer cannot be sent: {error}") from None
