"""inferd.v1.PredictService: Predict."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from inferd.backends.api import Array
from inferd.server.errors import ServingError
from inferd.server.inference.queued_groups import BatchShare
from inferd.server.inference.request_groups import GroupTarget
from inferd.server.inference.service import Answer, InferenceService, Query, unsendable
from inferd.server.lifecycle.interfaces import ServableLike
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.transport.calls import UnaryCall
from inferd.wire.native import LAYOUTS, DecodedRequest, Facts, decode_request, encode_response, encode_responses
from inferd.wire.request_forms import MessageLayout
from inferd.wire.tensors import WireError

PROTOCOL = "grpc"


class NativePredict:
    """One request, one answer. Thread-safe."""

    def __init__(self, inference: InferenceService, edge: ErrorBoundary) -> None:
        self._inference = inference
        self._edge = edge

    def __call__(self, call: UnaryCall) -> None:
        """Handles one call. Raises what is refused before the scheduler has it."""
        started = monotonic()
        message = call.request
        try:
            decoded = decode_request(message)
        except WireError as error:
            self._inference.refused(PROTOCOL, "INVALID_ARGUMENT", monotonic() - started)
            self._edge.fail(call, error, request_id=error.request_id)
            return
        request_id = decoded.request_id or self._edge.gate.request_id(call, "")

        def answer(outcome: Answer | ServingError) -> None:
            try:
                if isinstance(outcome, Answer):
                    id_ = outcome.id
                    call.reply(encode_response(id_.name, id_.version, outcome.signature, outcome.outputs, request_id))
                    return
                error: Exception = outcome
            except WireError as failed:
                error = unsendable(failed)
            except Exception as failed:
                error = failed
            self._edge.fail(call, error, request_id=request_id, model=decoded.model_name)

        try:
            asked = query(decoded, call.deadline, len(message), started)
            cancel = self._inference.start(asked, answer, call)
        except Exception as error:
            self._edge.fail(call, error, request_id=request_id, model=decoded.model_name)
            return
        call.on_cancel(cancel)


class NativeCodec:
    """How calls of Predict that came together are read and written (`protocols.common.codec`)."""

    protocol = PROTOCOL
    layouts = LAYOUTS
    names = False

    def __init__(self, edge: ErrorBoundary) -> None:
        self._gate = edge.gate

    def target(self, facts: Facts) -> GroupTarget | None:
        name, version, label, _, outputs, priority, timeout = facts
        return None if priority or timeout else GroupTarget(name, version, label, outputs or None)

    def request_ids(
        self, calls: Sequence[UnaryCall], messages: Sequence[tuple[MessageLayout[Facts], bytes]]
    ) -> Sequence[str | None]:
        new = self._gate.request_id
        return [
            layout.request_id(message) if layout.identified else new(call, "")
            for call, (layout, message) in zip(calls, messages, strict=True)
        ]

    def request_id(self, call: UnaryCall, layout: MessageLayout[Facts], message: bytes) -> str | None:
        return layout.request_id(message) if layout.identified else self._gate.request_id(call, "")

    def encode_one(self, servable: ServableLike, signature: str, outputs: dict[str, Array], request_id: str) -> bytes:
        id_ = servable.id
        return encode_response(id_.name, id_.version, signature, outputs, request_id)

    def encode(self, share: BatchShare, request_ids: Sequence[str]) -> list[bytes]:
        id_ = share.handle.servable.id
        return encode_responses(
            id_.name, id_.version, share.plan.signature.name, share.outputs, share.rows, request_ids
        )


def query(decoded: DecodedRequest, deadline: float | None, nbytes: int, started: float) -> Query:
    """A native request in no protocol's words."""
    return Query(
        PROTOCOL,
        decoded.model_name,
        decoded.version,
        decoded.label,
        decoded.signature,
        decoded.inputs,
        decoded.outputs,
        decoded.priority,
        decoded.queue_timeout_us * 1e-6 if decoded.queue_timeout_us else None,
        deadline,
        nbytes,
        started,
        False,
        decoded.form,
    )


def encode(answer: Answer, request_id: str) -> bytes:
    """A native response. An output that cannot travel is the model's failure, not the caller's."""
    try:
        return encode_response(answer.id.name, answer.id.version, answer.signature, answer.outputs, request_id)
    except WireError as error:
        raise unsendable(error) from None
