"""Codecs of inferd.v1.PredictService: Predict and PredictStream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inferd.backends.api import Array
from inferd.server.inference.failures import Failure
from inferd.server.inference.interfaces import Call, Check, DecodedCall
from inferd.server.inference.plan import RequestForm, RequestTemplate
from inferd.server.inference.request_groups import RequestGroup
from inferd.server.inference.request_ids import RequestIds
from inferd.server.protocols.common.codec import WholeCodec
from inferd.server.protocols.common.stream_session import StreamedCall, admit_streamed
from inferd.server.scheduling.request import InferenceRequest
from inferd.wire.message_forms import MessageForm
from inferd.wire.native import (
    LAYOUTS,
    DecodedRequest,
    StreamFailure,
    decode_request,
    encode_response,
    encode_responses,
    encode_stream_failure,
    encode_stream_response,
)

PREDICT = "/inferd.v1.PredictService/Predict"
PREDICT_STREAM = "/inferd.v1.PredictService/PredictStream"


class NativeCodec(WholeCodec):
    """Reads and writes the messages of Predict. Thread-safe."""

    protocol = "grpc"

    def __init__(self, check: Check, ids: RequestIds, method: str = PREDICT) -> None:
        super().__init__(method, check)
        self._request_id = ids.request_id
        self.match = LAYOUTS.match  # type: ignore[method-assign]  # saves a method call for every message

    def _template(self, form: MessageForm[Any]) -> RequestTemplate:
        name, version, label, signature, outputs, priority, timeout = form.facts
        asked = self.forms.of(name, version, label, signature, outputs or None, form.tensors)
        return RequestTemplate(asked, priority, timeout * 1e-6 if timeout else None)

    def decode(self, call: Call) -> Sequence[DecodedCall]:
        """See Codec."""
        message = call.request
        decoded = decode_request(message)
        template = self._asked(decoded)
        request_id = decoded.request_id or self._request_id(call)
        known: Any = decoded.form
        return (
            DecodedCall(
                call,
                template,
                decoded.inputs,
                request_id,
                len(message),
                priority=template.priority,
                remembered=known is not None,
            ),
        )

    def _asked(self, decoded: DecodedRequest) -> RequestTemplate:
        if decoded.form is not None:
            template = self.templates[decoded.form]  # type: ignore[index]
            assert template is not None
            return template
        outputs, timeout = decoded.outputs or None, decoded.queue_timeout_us
        form = self.forms.once(decoded.model_name, decoded.version, decoded.label, decoded.signature, outputs)
        return RequestTemplate(form, decoded.priority, timeout * 1e-6 if timeout else None)

    def encode(
        self, group: RequestGroup, outputs: dict[str, Array], requests: Sequence[InferenceRequest]
    ) -> list[bytes]:
        """See Codec."""
        assert group.handle is not None
        id_, signature = group.handle.servable.id, group.plan.signature.name
        if len(requests) == 1:
            return [encode_response(id_.name, id_.version, signature, outputs, self._id_of(requests[0]))]
        ids = [self._id_of(request) for request in requests]
        return encode_responses(id_.name, id_.version, signature, outputs, group.route.rows, ids)

    def _id_of(self, request: InferenceRequest) -> str:
        """The id of the answer: the caller's, or a new one, which is kept with the request."""
        call = request.call
        if not request.request_id and call is not None:  # without a call it was cancelled: nobody gets the answer
            request.request_id = self._request_id(call)
        return request.request_id


class NativeStreamCodec(NativeCodec):
    """Reads and writes the messages of PredictStream. A failure is a message of the stream. Thread-safe."""

    bounded, plain = True, False

    def __init__(self, check: Check, ids: RequestIds) -> None:
        super().__init__(check, ids, PREDICT_STREAM)

    def admit(self, call: Call) -> None:
        """See Codec."""
        admit_streamed(call)

    def encode(
        self, group: RequestGroup, outputs: dict[str, Array], requests: Sequence[InferenceRequest]
    ) -> list[bytes]:
        """See Codec."""
        responses = super().encode(group, outputs, requests)
        return [
            encode_stream_response(request.request_id, response)
            for request, response in zip(requests, responses, strict=True)
        ]

    def fail(self, call: Call, failure: Failure, request_id: str, form: RequestForm | None) -> None:
        """See Codec."""
        assert isinstance(call, StreamedCall)
        if form is not None:  # else the message could not be decoded, and its answer has no id either
            request_id = request_id or self._request_id(call)
        call.fail_with(failure, encode_stream_failure(request_id, StreamFailure(failure.code.value, failure.text)))
