"""inference.GRPCInferenceService: ModelInfer."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from inferd.backends.api import Array
from inferd.server.errors import InvalidRequest, ServingError
from inferd.server.inference.queued_groups import BatchShare
from inferd.server.inference.request_groups import GroupTarget
from inferd.server.inference.service import Answer, InferenceService, unsendable
from inferd.server.inference.shared_memory import Regions, admit_shared
from inferd.server.lifecycle.interfaces import ManagerLike, ServableLike
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.protocols.oip.classification import classified
from inferd.server.protocols.oip.error_messages import unknown, version_of
from inferd.server.protocols.oip.errors import in_hand
from inferd.server.protocols.oip.request import query
from inferd.server.protocols.oip.request_options import RequestOptions, request_options
from inferd.server.transport.calls import UnaryCall
from inferd.wire.oip import LAYOUTS, Facts, OipRequest, decode_request, encode_response, encode_responses
from inferd.wire.request_forms import MessageLayout
from inferd.wire.tensors import WireError

PROTOCOL = "oip"


class ModelInfer:
    """One request, one answer. Thread-safe."""

    def __init__(
        self, inference: InferenceService, manager: ManagerLike, edge: ErrorBoundary, regions: Regions
    ) -> None:
        self._inference = inference
        self._manager = manager
        self._edge = edge
        self._regions = regions

    def __call__(self, call: UnaryCall) -> None:
        """Handles one call."""
        started = monotonic()
        message = call.request
        try:
            request = decode_request(message)
            asked = request_options(request, self._regions)
            if asked.shared:
                admit_shared(self._edge.gate, call)
            wanted = query(PROTOCOL, request, asked, call.deadline, len(message), started)
        except (WireError, ServingError) as error:
            self._inference.refused(PROTOCOL, self._edge.status(error, "").code.name, monotonic() - started)
            self._edge.fail(call, error, request_id=getattr(error, "request_id", ""))
            return

        def answer(outcome: Answer | ServingError) -> None:
            try:
                if isinstance(outcome, Answer):
                    call.reply(encode(outcome, request, asked))
                    return
                error: Exception = outcome
            except Exception as failed:
                error = failed
            self._fail(call, in_hand(error, request.request_id), request)

        try:
            cancel = self._inference.start(wanted, answer, call)
        except Exception as error:
            refused = unknown(error, self._manager, request.model_name, request.model_version)
            self._fail(call, in_hand(refused, request.request_id), request)
            return
        call.on_cancel(cancel)

    def _fail(self, call: UnaryCall, error: Exception, request: OipRequest) -> None:
        self._edge.fail(call, error, request_id=request.request_id, model=request.model_name)


class OipCodec:
    """How bursts of ModelInfer are read and written (`rpc.speech`)."""

    protocol = PROTOCOL
    layouts = LAYOUTS
    names = True

    def target(self, facts: Facts) -> GroupTarget | None:
        name, number, parameters, outputs = facts
        if parameters or any(output.parameters for output in outputs):
            return None
        try:
            version, label = version_of(number)
        except InvalidRequest:
            return None
        return GroupTarget(name, version, label, tuple(dict.fromkeys(output.name for output in outputs)) or None)

    def request_ids(
        self, _calls: Sequence[UnaryCall], messages: Sequence[tuple[MessageLayout[Facts], bytes]]
    ) -> Sequence[str | None]:
        return [layout.request_id(message) if layout.identified else "" for layout, message in messages]

    def request_id(self, _call: UnaryCall, layout: MessageLayout[Facts], message: bytes) -> str | None:
        return layout.request_id(message) if layout.identified else ""

    def encode_one(self, servable: ServableLike, _signature: str, outputs: dict[str, Array], request_id: str) -> bytes:
        id_ = servable.id
        return encode_response(id_.name, id_.version, outputs, request_id)

    def encode(self, share: BatchShare, request_ids: Sequence[str]) -> list[bytes]:
        id_ = share.handle.servable.id
        return encode_responses(id_.name, id_.version, share.outputs, share.rows, request_ids)


def encode(answer: Answer, request: OipRequest, asked: RequestOptions, *, final: bool | None = None) -> bytes:
    """A ModelInferResponse. An output that cannot travel is the model's failure, not the caller's."""
    outputs = classified(answer, asked.classes) if asked.classes else answer.outputs
    targets = {name: place.write for name, place in asked.targets.items()}
    try:
        return encode_response(
            answer.id.name, answer.id.version, outputs, request.request_id, final=final, elsewhere=targets
        )
    except WireError as error:
        raise unsendable(error) from None
