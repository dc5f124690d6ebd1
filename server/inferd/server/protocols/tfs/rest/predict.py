"""POST /v1/models/MODEL[/versions/N|/labels/LABEL]:predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from inferd.backends.api import DEFAULT_SIGNATURE, Array, Signature
from inferd.server.errors import InvalidRequest
from inferd.server.http.error_boundary import RestErrorBoundary, RoutedRequest
from inferd.server.http.exchange import HttpExchange
from inferd.server.http.infer_routes import InferTarget
from inferd.server.http.method_call import InferCall
from inferd.server.http.reply import JSON, Reply, UnwrittenReply
from inferd.server.http.workers import SHORT
from inferd.server.inference.interfaces import Call, Check, DecodedCall
from inferd.server.inference.plan import RequestForm, RequestTemplate
from inferd.server.inference.request_groups import RequestGroup
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.protocols.common.answers import Answer, answers_of
from inferd.server.protocols.common.codec import KnownTemplates
from inferd.server.protocols.tfs.codec import TfsMethodCodec
from inferd.server.protocols.tfs.error_messages import acquire
from inferd.server.protocols.tfs.rest.request import read_document, read_inputs
from inferd.server.protocols.tfs.rest.response import write_response
from inferd.server.scheduling.request import InferenceRequest

_MODEL: Final = "/v1/models/(?P<model>[^/]+)"
PREDICT_ROUTES: Final = (
    ("/v1/models/{model}:predict", f"{_MODEL}:predict"),
    ("/v1/models/{model}/versions/{version}:predict", f"{_MODEL}/versions/(?P<version>[0-9]{{1,18}}):predict"),
    ("/v1/models/{model}/labels/{label}:predict", f"{_MODEL}/labels/(?P<label>[^/:]+):predict"),
)
"""Template and pattern of each route."""


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """A request that has been read. `rows`: its inputs came as rows, and so do the outputs."""

    signature: str
    inputs: dict[str, Array]
    rows: bool


class RestPredictCodec(TfsMethodCodec):
    """Reads and writes the bodies of requests over REST. Its calls are InferCalls. Thread-safe."""

    protocol = "http-tfs"

    def __init__(self, check: Check, manager: ManagerLike, method: str) -> None:
        super().__init__(check, manager, method)
        self._method = method
        self._known = KnownTemplates()

    def decode(self, call: Call) -> Sequence[DecodedCall]:
        """See Codec."""
        asked = cast(InferCall, call)
        target, body, parsed = asked.target, asked.request, asked.parsed
        version = int(target.version) if target.version else None
        if parsed is None:
            parsed = self._parse(body, target)
        inputs: dict[str, Array] = parsed.inputs
        tensors = tuple([(name, array.dtype, array.shape) for name, array in inputs.items()])
        key = (target.model, version, target.label, parsed.signature, parsed.rows, tensors)
        template = self._known.get(key)
        if template is None:
            form = RequestForm(
                self._method, target.model, version, target.label, parsed.signature, None, tensors, parsed.rows
            )
            template = self._known.keep(key, RequestTemplate(form))
        return (DecodedCall(call, template, inputs, "", len(body), remembered=True, owned=True),)

    def _parse(self, body: bytes, target: InferTarget) -> PredictRequest:
        while True:
            given, name = read_document(body)
            name = name or DEFAULT_SIGNATURE
            signature = self.signature(target, name)
            inputs, rows = read_inputs(given, signature)
            if self.holds(signature, target, name):
                return PredictRequest(name, inputs, rows)

    def holds(self, signature: Signature, target: InferTarget, name: str) -> bool:
        """Whether the inputs that were read by this signature are still those of the version that serves. If not, a
        version with other inputs has come into service meanwhile, and the body is to be read again by its signature.
        Raises ServingError."""
        return self.signature(target, name).inputs == signature.inputs

    def encode(self, group: RequestGroup, outputs: dict[str, Array], requests: Sequence[InferenceRequest]) -> list[Any]:
        """See Codec: each answer is a Reply or an UnwrittenReply."""
        rows: bool = group.template.form.options
        nbytes = sum([array.nbytes for array in outputs.values()]) // len(requests)
        answers = answers_of(group, outputs, requests)
        if nbytes > SHORT:
            return [UnwrittenReply(nbytes, _writer(answer, rows)) for answer in answers]
        return [Reply(200, write_response(answer.outputs, rows=rows), JSON) for answer in answers]

    def signature(self, target: InferTarget, name: str) -> Signature:
        """The signature of this name. Raises ServingError."""
        version = int(target.version) if target.version else None
        handle = acquire(self._manager, target.model, version, target.label)
        try:
            servable = handle.servable
            found = servable.signatures.get(name)
            if found is None:
                known = ", ".join(map(repr, servable.signatures))
                raise InvalidRequest(f'Serving signature name: "{name}" not found in signature def; known: {known}')
            return found
        finally:
            handle.release()


class RestPredict:
    """Answers the predict requests that did not come whole, or that are long. Used on the event loop."""

    def __init__(self, boundary: RestErrorBoundary, codec: RestPredictCodec) -> None:
        self.boundary = boundary
        self._codec = codec

    async def __call__(self, request: RoutedRequest, target: InferTarget) -> Reply:
        """See InferEndpoint."""

        async def work(exchange: HttpExchange) -> Reply:
            body = await exchange.body()
            while True:
                given, asked = await exchange.run(len(body), read_document, body)
                name = asked or DEFAULT_SIGNATURE
                signature = self._codec.signature(target, name)
                inputs, rows = await exchange.run(len(body), read_inputs, given, signature)
                if self._codec.holds(signature, target, name):
                    break
            return await self.boundary.infer(exchange, body, target, PredictRequest(name, inputs, rows))

        return await self.boundary.run(request, work)


def _writer(answer: Answer, rows: bool) -> Any:
    return lambda: Reply(200, write_response(answer.outputs, rows=rows), JSON)
