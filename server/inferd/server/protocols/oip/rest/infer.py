"""POST /v2/models/MODEL[/versions/VERSION]/infer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from inferd.backends.api import Array
from inferd.server.access.rules import AccessRules
from inferd.server.errors import ServingError
from inferd.server.http.error_boundary import RestErrorBoundary, RoutedRequest
from inferd.server.http.exchange import HttpExchange
from inferd.server.http.infer_routes import InferTarget
from inferd.server.http.known_heads import JSON_LENGTH, text_of
from inferd.server.http.method_call import InferCall
from inferd.server.http.reply import Reply, UnwrittenReply
from inferd.server.http.workers import SHORT
from inferd.server.inference.interfaces import Call, Check, DecodedCall
from inferd.server.inference.plan import RequestForm, RequestTemplate
from inferd.server.inference.request_groups import RequestGroup
from inferd.server.inference.shared_memory import Regions
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.protocols.common.answers import Answer, answers_of
from inferd.server.protocols.common.codec import KnownTemplates
from inferd.server.protocols.oip.codec import OipCodec, OipExtras
from inferd.server.protocols.oip.error_messages import unknown, version_of
from inferd.server.protocols.oip.errors import in_hand
from inferd.server.protocols.oip.request_options import DEFAULTS
from inferd.server.protocols.oip.rest.request import TEXT, RestRequest, read_raw_request, read_request
from inferd.server.protocols.oip.rest.response import write_replies, write_reply
from inferd.server.scheduling.request import InferenceRequest

INFER_ROUTES: Final = (
    ("/v2/models/{model}/infer", r"/v2/models/(?P<model>[^/]+)/infer"),
    ("/v2/models/{model}/versions/{version}/infer", r"/v2/models/(?P<model>[^/]+)/versions/(?P<version>[^/]+)/infer"),
)
"""Template and pattern of each route."""


class RestInferCodec(OipCodec):
    """Reads and writes the bodies of requests over REST. Its calls are InferCalls. Thread-safe."""

    protocol = "http-oip"

    def __init__(self, check: Check, rules: AccessRules, manager: ManagerLike, regions: Regions, method: str) -> None:
        super().__init__(check, rules, manager, regions, method)
        del self.match  # a body of JSON has no fixed layout
        self._method = method
        self._known = KnownTemplates()

    def parse(self, body: bytes, header: str | None, target: InferTarget) -> RestRequest:
        """The request in a body; `header`: the value of Inference-Header-Content-Length, None without that header.
        Raises InvalidRequest, TensorError, ServingError."""
        if header == "0":
            return self._raw(body, target.model, target.version)
        return read_request(body, header, target.model, target.version)

    def decode(self, call: Call) -> Sequence[DecodedCall]:
        """See Codec."""
        asked = cast(InferCall, call)
        parsed: RestRequest | None = asked.parsed
        if parsed is None:
            parsed = self.parse(asked.request, asked.metadata(JSON_LENGTH), asked.target)
        request, formats, nbytes = parsed.request, parsed.formats, len(asked.request)
        inputs, outputs = request.inputs, request.outputs
        if request.parameters or request.shared or (outputs and any(output.parameters for output in outputs)):
            return (self.prepared(call, request, nbytes, formats),)
        wanted = tuple([output.name for output in outputs]) if outputs else ()
        tensors = tuple([(name, array.dtype, array.shape) for name, array in inputs.items()])
        key = (request.model_name, request.model_version, wanted, None if formats is TEXT else formats, tensors)
        template = self._known.get(key)
        if template is None:
            version, label = version_of(request.model_version)
            extras = OipExtras(DEFAULTS, formats)
            only = tuple(dict.fromkeys(wanted)) or None
            form = RequestForm(self._method, request.model_name, version, label, "", only, tensors, extras)
            template = self._known.keep(key, RequestTemplate(form))
        return (DecodedCall(call, template, inputs, request.request_id, nbytes, remembered=True),)

    def encode(self, group: RequestGroup, outputs: dict[str, Array], requests: Sequence[InferenceRequest]) -> list[Any]:
        """See Codec: each answer is a Reply or an UnwrittenReply."""
        extras: OipExtras = group.template.form.options
        ids = [request.request_id for request in requests]
        nbytes = sum([array.nbytes for array in outputs.values()]) // len(requests)
        if nbytes > SHORT:
            answers = zip(answers_of(group, outputs, requests), ids, strict=True)
            return [_unwritten(answer, id_, extras, nbytes) for answer, id_ in answers]
        if extras.formats is TEXT and extras.options is DEFAULTS:
            assert group.handle is not None
            replies = write_replies(group.handle.servable.id, outputs, ids)
            if replies is not None:
                return replies
        answers = zip(answers_of(group, outputs, requests), ids, strict=True)
        return [write_reply(answer, id_, extras) for answer, id_ in answers]

    def _raw(self, body: bytes, model: str, version: str) -> RestRequest:
        number, label = version_of(version)
        try:
            handle = self._manager.acquire(model, number, label)
        except ServingError as error:
            raise unknown(error, self._manager, model, version) from None
        try:
            servable = handle.servable
            signature = servable.signatures[servable.default_signature]
            return read_raw_request(body, model, version, signature, batched=servable.max_batch_size > 0)
        finally:
            handle.release()


class RestInfer:
    """Answers the inference requests that did not come whole, or that are long. Used on the event loop."""

    def __init__(self, boundary: RestErrorBoundary, codec: RestInferCodec) -> None:
        self.boundary = boundary
        self._codec = codec

    async def __call__(self, request: RoutedRequest, target: InferTarget) -> Reply:
        """See InferEndpoint."""

        async def work(exchange: HttpExchange) -> Reply:
            body = await exchange.body()
            header = exchange.headers.get(JSON_LENGTH)
            parsed = await exchange.run(text_of(exchange.headers, len(body)), self._codec.parse, body, header, target)
            return await self.boundary.infer(exchange, body, target, parsed)

        return await self.boundary.run(request, work)


def _unwritten(answer: Answer, request_id: str, extras: OipExtras, nbytes: int) -> UnwrittenReply:
    def write() -> Reply:
        try:
            return write_reply(answer, request_id, extras)
        except ServingError as error:
            raise in_hand(error, request_id) from None

    return UnwrittenReply(nbytes, write)
