"""Codecs of inference.GRPCInferenceService: ModelInfer and ModelStreamInfer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inferd.backends.api import Array
from inferd.server.access.rules import AccessRules
from inferd.server.errors import InvalidRequest
from inferd.server.inference.failures import Failure
from inferd.server.inference.interfaces import Call, Check, DecodedCall
from inferd.server.inference.plan import RequestForm, RequestTemplate
from inferd.server.inference.request_groups import RequestGroup
from inferd.server.inference.shared_memory import Regions
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.protocols.common.answers import answer_of
from inferd.server.protocols.common.codec import WholeCodec
from inferd.server.protocols.common.stream_session import StreamedCall, admit_streamed
from inferd.server.protocols.oip.classification import classified
from inferd.server.protocols.oip.error_messages import checked, unknown, version_of
from inferd.server.protocols.oip.errors import failure, in_hand
from inferd.server.protocols.oip.request_options import RequestOptions, request_options
from inferd.server.scheduling.request import InferenceRequest
from inferd.wire.message_forms import MessageForm
from inferd.wire.oip import (
    LAYOUTS,
    OipRequest,
    decode_request,
    encode_response,
    encode_responses,
    encode_stream_failure,
    encode_stream_response,
)
from inferd.wire.tensors import decode

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"


@dataclass(frozen=True, slots=True, eq=False)
class OipExtras:
    """The parts of a request that its answer needs beyond the outputs. `formats`: how an answer over REST has them."""

    options: RequestOptions
    formats: Any = None


class OipCodec(WholeCodec):
    """Reads and writes the messages of ModelInfer. Thread-safe."""

    protocol = "oip"
    named = True
    final: bool | None = None
    """The parameter triton_final_response of the answers; None: they do not have it."""

    def __init__(
        self, check: Check, rules: AccessRules, manager: ManagerLike, regions: Regions, method: str = INFER
    ) -> None:
        super().__init__(method, checked(check))
        self._rules = rules
        self._manager = manager
        self._regions = regions
        self.match = LAYOUTS.match  # type: ignore[method-assign]  # saves a method call for every message

    def _template(self, form: MessageForm[Any]) -> RequestTemplate | None:
        name, number, parameters, outputs = form.facts
        if parameters or any(output.parameters for output in outputs):
            return None
        try:
            version, label = version_of(number)
        except InvalidRequest:
            return None
        wanted = tuple(dict.fromkeys(output.name for output in outputs)) or None
        return RequestTemplate(self.forms.of(name, version, label, "", wanted, form.tensors))

    def decode(self, call: Call) -> Sequence[DecodedCall]:
        """See Codec."""
        message = call.request
        request = decode_request(message)
        try:
            return (self.prepared(call, request, len(message)),)
        except Exception as error:
            error.request_id = request.request_id  # type: ignore[attr-defined]
            raise

    def prepared(self, call: Call, request: OipRequest, nbytes: int, formats: Any = None) -> DecodedCall:
        """The decoded request, with its inputs in shared memory read. `nbytes`: size of the message; `formats`: see
        OipExtras. Raises InvalidRequest, Forbidden, NotFound, Unsupported, WireError."""
        asked = request_options(request, self._regions)
        if asked.shared:
            self._rules.authorize_shared_memory(call)
        version, label = version_of(request.model_version)
        for name, place in asked.sources.items():
            given = request.shared[name]
            request.inputs[name] = decode(name, given.dtype, given.shape, place.read())
            nbytes += place.size
        known: Any = request.form
        template = None if known is None else self.templates[known]
        if template is None:
            wanted = tuple(dict.fromkeys(output.name for output in request.outputs)) or None
            extras = OipExtras(asked, formats)
            form = self.forms.once(request.model_name, version, label, "", wanted, extras)
            template, known = RequestTemplate(form, asked.priority, asked.queue_timeout), None
        return DecodedCall(
            call,
            template,
            request.inputs,
            request.request_id,
            nbytes,
            priority=template.priority,
            remembered=known is not None,
        )

    def encode(
        self, group: RequestGroup, outputs: dict[str, Array], requests: Sequence[InferenceRequest]
    ) -> Sequence[Any]:
        """See Codec."""
        assert group.handle is not None
        servable = group.handle.servable
        id_, extras = servable.id, group.template.form.options
        if extras is not None:
            asked = extras.options
            if asked.classes:
                outputs = classified(answer_of(group, outputs), asked.classes)
            targets = {name: place.write for name, place in asked.targets.items()}
            request_id = requests[0].request_id
            return [encode_response(id_.name, id_.version, outputs, request_id, final=self.final, elsewhere=targets)]
        if len(requests) == 1:
            return [encode_response(id_.name, id_.version, outputs, requests[0].request_id, final=self.final)]
        ids = [request.request_id for request in requests]
        return encode_responses(id_.name, id_.version, outputs, group.route.rows, ids)

    def refused(self, error: Exception, form: RequestForm) -> Exception:
        """See Codec."""
        version = form.label or ("" if form.version is None else str(form.version))
        return unknown(error, self._manager, form.model, version)

    def failure(self, error: Exception, request_id: str, shown: str, form: RequestForm | None) -> Failure:
        """See Codec."""
        return failure(error if form is None else in_hand(error, request_id), shown)


class OipStreamCodec(OipCodec):
    """Reads and writes the messages of ModelStreamInfer. A failure is a message of the stream. Thread-safe."""

    bounded, plain = True, False
    final = True

    def __init__(self, check: Check, rules: AccessRules, manager: ManagerLike, regions: Regions) -> None:
        super().__init__(check, rules, manager, regions, STREAM_INFER)

    def admit(self, call: Call) -> None:
        """See Codec."""
        admit_streamed(call)

    def encode(
        self, group: RequestGroup, outputs: dict[str, Array], requests: Sequence[InferenceRequest]
    ) -> Sequence[Any]:
        """See Codec."""
        if len(requests) == 1:
            return [encode_stream_response(super().encode(group, outputs, requests)[0])]
        rows = group.route.rows
        answers: list[Any] = []
        for number, request in enumerate(requests):
            part = {name: output[number * rows : (number + 1) * rows] for name, output in outputs.items()}
            answers += self.encode(group, part, (request,))
        return answers

    def fail(self, call: Call, failure: Failure, request_id: str, form: RequestForm | None) -> None:
        """See Codec."""
        assert isinstance(call, StreamedCall)
        model, version = "", ""
        if form is not None:
            model, version = form.model, form.label or ("" if form.version is None else str(form.version))
        call.fail_with(failure, encode_stream_failure(failure.text, request_id, model, version))
