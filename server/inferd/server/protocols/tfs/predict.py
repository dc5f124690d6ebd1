"""tensorflow.serving.PredictionService: Predict."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from inferd.backends.api import Array
from inferd.server.errors import ServingError
from inferd.server.inference.queued_groups import BatchShare
from inferd.server.inference.request_groups import GroupTarget
from inferd.server.inference.service import Answer, Query, unsendable
from inferd.server.lifecycle.interfaces import ServableLike
from inferd.server.protocols.tfs.calls import PRIORITY, PROTOCOL, Calls, checked_name
from inferd.server.transport.calls import UnaryCall
from inferd.wire.request_forms import MessageLayout
from inferd.wire.tensors import WireError
from inferd.wire.tfs import LAYOUTS, Facts, decode_request, encode_response, encode_responses


class TfsPredict:
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
        nbytes = len(message)
        if request.form is None:  # maybe a last value that stands for many: what waits is what was made of it
            nbytes = max(nbytes, sum(array.nbytes for array in request.inputs.values()))
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
            nbytes,
            started,
            form=request.form,
        )
        self._calls.run(call, query, encode)


class TfsCodec:
    """How calls of Predict that came together are read and written (`protocols.common.codec`)."""

    protocol = PROTOCOL
    layouts = LAYOUTS
    names = False

    def target(self, facts: Facts) -> GroupTarget | None:
        name, version, label, _, outputs = facts
        return GroupTarget(name, version, label, outputs or None) if name else None

    def request_ids(
        self, calls: Sequence[UnaryCall], _messages: Sequence[tuple[MessageLayout[Facts], bytes]]
    ) -> Sequence[str | None]:
        return ["" if call.metadata(PRIORITY) is None else None for call in calls]

    def request_id(self, call: UnaryCall, _layout: MessageLayout[Facts], _message: bytes) -> str | None:
        return "" if call.metadata(PRIORITY) is None else None

    def encode_one(self, servable: ServableLike, signature: str, outputs: dict[str, Array], _request_id: str) -> bytes:
        id_ = servable.id
        return encode_response(id_.name, id_.version, signature, outputs)

    def encode(self, share: BatchShare, request_ids: Sequence[str]) -> list[bytes]:
        id_ = share.handle.servable.id
        signature = share.plan.signature.name
        return encode_responses(id_.name, id_.version, signature, share.outputs, share.rows, len(request_ids))


def encode(answer: Answer) -> bytes:
    """A PredictResponse. An output that cannot travel is the model's failure, not the caller's."""
    try:
        return encode_response(answer.id.name, answer.id.version, answer.signature, answer.outputs)
    except WireError as error:
        raise unsendable(error) from None
